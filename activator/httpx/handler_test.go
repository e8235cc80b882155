package httpx_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/httpx"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// key is the engine's service; its own name is a host.
var key = scaling.Key{Namespace: "web", Name: "shop"} //nolint:gochecknoglobals // a constant, were it not a struct

const host = "shop.web"

// leavingWriter is a client that leaves when the answer is complete, but for what the engine does about it.
type leavingWriter struct {
	*httptest.ResponseRecorder
	leave func()
}

func (w *leavingWriter) Write(p []byte) (int, error) {
	w.leave()
	<-time.After(20 * time.Millisecond) // until the engine has noticed, of which nothing tells
	return w.ResponseRecorder.Write(p)
}

// newHandler returns an engine alone, without sockets of its own on the client's side.
func newHandler(t *testing.T, options httpx.Options) (*httpx.Handler, *hold.Gates) {
	t.Helper()
	gates := new(hold.Gates)
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	described := &scaling.Service{Key: key, Hold: scaling.Hold{Timeout: time.Second}, Timeouts: scaling.Timeouts{Dial: time.Second}}
	gate := gates.Adopt([]*scaling.Service{described})[0]
	table, _ := route.Build([]route.Rule[*service.Service]{
		{Service: described, Value: service.New(gate, counters.Service("web", "shop"))},
	}, route.Options{})
	options.Logger, options.Unrouted = zap.NewNop(), counters.Service("", "")
	h := httpx.New(options)
	h.Adopt(table)
	return h, gates
}

func TestMessagesOfFailuresAreForClientsOnLoopbackOnly(t *testing.T) {
	h, gates := newHandler(t, httpx.Options{Reveal: true})
	gates.Publish(key, &scaling.View{Failure: &scaling.Failure{Reason: scaling.ReasonNotFound, Message: "no such file: shop"}})
	for client, told := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "127.8.9.1:1": true,
		"192.0.2.1:1": false, "[2001:db8::1]:1": false, "[::ffff:192.0.2.1]:1": false, "": false, "@": false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = host, client
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		if got := strings.Contains(answer.Body.String(), "no such file"); got != told || !strings.Contains(answer.Body.String(), "NotFound") {
			t.Errorf("%q is told %s", client, answer.Body)
		}
	}
}

func TestAConnectionThatWasInterruptedCarriesNobodyElse(t *testing.T) {
	h, gates := newHandler(t, httpx.Options{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer up.Close()
	gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: up.Listener.Addr().String(), Protocol: scaling.ProtocolHTTP1}}})

	ctx, leave := context.WithCancel(t.Context())
	first := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	first.Host = host
	func() {
		defer func() { _ = recover() }() // http.ErrAbortHandler, for its client has left
		h.ServeHTTP(&leavingWriter{httptest.NewRecorder(), leave}, first)
	}()

	second := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("x"))
	second.Host = host
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, second)
	if answer.Code != http.StatusOK || answer.Body.String() != "hello" {
		t.Errorf("got %d %q", answer.Code, answer.Body)
	}
}

// The endpoint has the same deadline as its client, and may be the first to give a call up.
func TestACallWhoseTimeIsOverIsToldSo(t *testing.T) {
	h, gates := newHandler(t, httpx.Options{})
	gates.Publish(key, &scaling.View{Failure: &scaling.Failure{Reason: scaling.ReasonNotFound}})
	for timeout, want := range map[string]string{
		"1n": "4", "0S": "4", "10S": "14", "99999999H": "14", "": "14", "5": "14", "S": "14", "-1S": "14", "1x": "14", "123456789n": "14",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Host = host
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Grpc-Timeout", timeout)
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		if got := answer.Header().Get("Grpc-Status"); got != want {
			t.Errorf("%q: got %s, want %s", timeout, got, want)
		}
	}
}
