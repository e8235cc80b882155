package http1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/activator/tcp"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// engine is an Engine on loopback with one service, whose endpoints a test publishes.
type engine struct {
	*Engine
	t       testing.TB
	gates   *hold.Gates
	metrics *prometheus.Registry
	addr    string
}

var key = scaling.Key{Namespace: "web", Name: "shop"} //nolint:gochecknoglobals // a constant, were it not a struct

func newEngine(t testing.TB, portable bool, changes ...func(*scaling.Service)) *engine {
	t.Helper()
	e := &engine{t: t, gates: new(hold.Gates), metrics: prometheus.NewRegistry()}
	counters, err := metrics.New(e.metrics, metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &scaling.Service{Key: key, Hold: scaling.Hold{Timeout: 5 * time.Second}, Timeouts: scaling.Timeouts{Dial: time.Second}}
	for _, change := range changes {
		change(s)
	}
	gate := e.gates.Adopt([]*scaling.Service{s})[0]
	departures := new(tcp.Departures)
	e.Engine = New(Options{
		Logger: zaptest.NewLogger(t), Unrouted: counters.Service("", ""), HeaderTimeout: time.Second, KeepAlive: time.Minute,
		MaxHeaderBytes: 64 << 10, Departures: departures, Handover: func(h *Handover) { _ = h.Conn.Close() }, Portable: portable,
	})
	table, _ := route.Build([]route.Rule[*service.Service]{{Service: s, Value: service.New(gate, counters.Service("web", "shop"))}}, route.Options{})
	e.Adopt(table)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- departures.Run(ctx) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tcp, _ := c.(*net.TCPConn)
			go e.NewConn(c, tcp, nil, false, nil).Serve()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		e.gates.CloseIdle()
	})
	return e
}

func (e *engine) serve(h http.HandlerFunc) {
	s := httptest.NewServer(h)
	e.t.Cleanup(s.Close)
	e.gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: s.URL, Address: strings.TrimPrefix(s.URL, "http://"), Protocol: scaling.ProtocolHTTP1}}})
}

func TestRequestsAreCarried(t *testing.T) {
	for _, portable := range []bool{true, false} {
		t.Run(fmt.Sprintf("portable %t", portable), func(t *testing.T) {
			e := newEngine(t, portable)
			e.serve(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %d", r.Method, r.RequestURI, len(body))
			})
			c, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			r := bufio.NewReader(c)
			for i, text := range []string{
				"GET /a?b=c HTTP/1.1\r\nHost: shop.web\r\n\r\n",
				"POST /p HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 5\r\n\r\nhello",
				"POST /q HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
				"POST /large HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000),
				"GET /z HTTP/1.1\r\nHost: shop.web\r\n\r\n",
			} {
				fmt.Fprint(c, text)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(i, err)
				}
				body, err := io.ReadAll(resp.Body)
				t.Logf("%s %q %v", resp.Status, body, err)
				if resp.StatusCode != 200 {
					t.Fatal(resp)
				}
			}
		})
	}
}
