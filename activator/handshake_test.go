package activator_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/activator"
)

// secureServer runs a Server that speaks TLS, and returns its address and what ends it.
func secureServer(t *testing.T, change func(*activator.Config)) (s *activator.Server, address string, stop func() error) {
	t.Helper()
	l := listen(t)
	running := server(t, func(c *activator.Config) {
		c.Listeners = []activator.Listener{{Listener: l, TLS: true}}
		c.Certificate, c.Key = activator.WriteCertificate(t)
		change(c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- running.Run(ctx) }()
	t.Cleanup(cancel)
	<-running.Started()
	return running, l.Addr().String(), func() error { cancel(); return <-ended }
}

// connect connects by TCP.
func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// awaitOpen waits until so many connections are open.
func awaitOpen(t *testing.T, s *activator.Server, want int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
		open, _ := s.Connections()
		if open == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections are open, want %d", open, want)
		}
	}
}

func TestWhoSpeaksHTTPWhereTLSIsSpokenIsToldSo(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s, address, stop := secureServer(t, func(c *activator.Config) { c.Logger = zap.New(core) })
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS"} {
		c := connect(t, address)
		_, _ = io.WriteString(c, method+" / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Fatal(method, resp, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := "Client sent an HTTP request to an HTTPS server.\n"; err != nil || string(body) != want {
			t.Errorf("%s: %q, %v", method, body, err)
		}
		_ = c.Close()
	}
	awaitOpen(t, s, 0)
	failed := logs.Filter(func(e observer.LoggedEntry) bool {
		return strings.Contains(strings.ToLower(e.Message), "tls handshake")
	})
	if failed.Len() != 5 || failed.FilterLevelExact(zap.DebugLevel).Len() != 5 {
		t.Errorf("want five failures, for those who look for them: %v", failed.All())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAHandshakeMustNotTakeLong(t *testing.T) {
	s, address, _ := secureServer(t, func(c *activator.Config) { c.HeaderTimeout = 100 * time.Millisecond })
	for _, sent := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01\x00"} { // the begin of a ClientHello
		c := connect(t, address)
		_, _ = io.WriteString(c, sent)
		if n, _ := io.Copy(io.Discard, c); n != 0 { // until it is closed, or reset
			t.Errorf("%q was answered", sent)
		}
		awaitOpen(t, s, 0)
	}
}

func TestAHandshakeThatIsNotCompleteDoesNotKeepTheServer(t *testing.T) {
	s, address, stop := secureServer(t, func(c *activator.Config) { c.DrainTimeout = 10 * time.Second })
	silent := connect(t, address)
	awaitOpen(t, s, 1)
	began := time.Now()
	if err := stop(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	_, _ = io.Copy(io.Discard, silent) // it is closed
}

// What a client has chosen is what it gets, and a connection is one whichever engine it is at.
func TestTheHandshakeChoosesTheProtocol(t *testing.T) {
	s, address, stop := secureServer(t, func(*activator.Config) {})
	for open, offered := range [][]string{nil, {"http/1.1"}, {"h2"}, {"http/1.1", "h2"}} {
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: offered, MinVersion: tls.VersionTLS12}, //nolint:gosec // its own
			Protocols:       new(http.Protocols),
		}
		want := 1
		if slices.Contains(offered, "h2") {
			want = 2
		}
		transport.Protocols.SetHTTP1(want == 1)
		transport.Protocols.SetHTTP2(want == 2)
		t.Cleanup(transport.CloseIdleConnections)
		for range 3 {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address, nil)
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(offered, err)
			}
			if resp.StatusCode != http.StatusNotFound || resp.ProtoMajor != want {
				t.Errorf("%v: %s", offered, resp.Proto+" "+resp.Status)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		awaitOpen(t, s, open+1)
	}
	if err := stop(); err != nil { // they are idle, all four
		t.Error(err)
	}
	awaitOpen(t, s, 0)
}
