package feature

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// dialWebSocket opens a WebSocket to a service's /ws.
func dialWebSocket(t testing.TB, c *http.Client, url, service string) *websocket.Conn {
	t.Helper()
	client := *c
	client.Timeout = 0 // coder/websocket wants the context's instead
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, url+"/ws", &websocket.DialOptions{HTTPClient: &client, Host: service + ".default"})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Sec-WebSocket-Accept") == "" {
		t.Errorf("the handshake's answer lacks its fields: %v", resp.Header)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	ws.SetReadLimit(-1)
	return ws
}

// echoes sends a message and fails the test unless it comes back.
func echoes(t testing.TB, ws *websocket.Conn, kind websocket.MessageType, message []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- ws.Write(ctx, kind, message) }()
	gotKind, got, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if gotKind != kind || !bytes.Equal(got, message) {
		t.Errorf("%d bytes of kind %v came back, want %d of %v", len(got), gotKind, len(message), kind)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	d := startTLS(t, ca, t.TempDir(), []string{app(t, "shop", []string{"--listen-delay=200ms"})})

	t.Run("survives a cold start", func(t *testing.T) {
		ws := dialWebSocket(t, newClient(t), "ws://"+d.http, "shop")
		echoes(t, ws, websocket.MessageText, []byte("hello"))
		echoes(t, ws, websocket.MessageBinary, []byte{0, 1, 2, 255})
		if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("closing handshake: %v", err)
		}
	})

	t.Run("carries large messages", func(t *testing.T) {
		ws := dialWebSocket(t, newClient(t), "ws://"+d.http, "shop")
		echoes(t, ws, websocket.MessageBinary, letters(8<<20))
		echoes(t, ws, websocket.MessageText, []byte("and small ones after them"))
	})

	t.Run("carries pings", func(t *testing.T) {
		ws := dialWebSocket(t, newClient(t), "ws://"+d.http, "shop")
		ctx, cancel := context.WithTimeout(ws.CloseRead(t.Context()), patience)
		defer cancel()
		for range 3 {
			if err := ws.Ping(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("goes over TLS", func(t *testing.T) {
		d := d.in(t)
		ws := dialWebSocket(t, newTLS(t, ca, "http/1.1"), "wss://"+d.https, "shop")
		echoes(t, ws, websocket.MessageText, []byte("hello"))
		echoes(t, ws, websocket.MessageBinary, letters(1<<20))
	})

	t.Run("ends at the endpoint when its client is gone", func(t *testing.T) {
		d := d.in(t)
		ws := dialWebSocket(t, newClient(t), "ws://"+d.http, "shop")
		echoes(t, ws, websocket.MessageText, []byte("hello"))
		_ = ws.CloseNow()
		d.awaitInFlight("shop", 0)
	})
}

func TestUpgradedConnectionCarriesAnyProtocol(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--listen-delay=100ms"}), sham(t, "sham")})
	const handshake = "GET /upgrade HTTP/1.1\r\nHost: shop.default\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

	t.Run("and what was sent right behind the handshake", func(t *testing.T) {
		w := d.in(t).wire()
		w.send(handshake + "early")
		if resp, err := http.ReadResponse(w.r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "echo" {
			t.Fatalf("%v, %v", resp, err)
		}
		w.send(", late")
		got := make([]byte, len("early, late"))
		if _, err := io.ReadFull(w.r, got); err != nil || string(got) != "early, late" {
			t.Errorf("%q, %v", got, err)
		}
	})

	t.Run("with the client's half-close", func(t *testing.T) {
		w := d.in(t).wire()
		w.send(handshake)
		w.head()
		w.send("hello")
		w.closeWrite()
		if got, err := io.ReadAll(w.r); err != nil || string(got) != "hellobye" {
			t.Errorf("%q, %v; want the echo and the endpoint's last word", got, err)
		}
	})

	t.Run("with the endpoint's half-close", func(t *testing.T) {
		d := d.in(t)
		l := d.listen("sham")
		client := d.wire()
		client.send("GET / HTTP/1.1\r\nHost: sham.default\r\nConnection: upgrade\r\nUpgrade: any/1\r\n\r\n")
		endpoint := accept(t, l)
		endpoint.head()
		endpoint.send("HTTP/1.1 101 Go On\r\nConnection: Upgrade\r\nUpgrade: any/1\r\n\r\nfirst")
		endpoint.closeWrite()
		client.head()
		if got, err := io.ReadAll(client.r); err != nil || string(got) != "first" {
			t.Fatalf("client got %q, %v", got, err)
		}
		client.send("last")
		client.closeWrite()
		if got, err := io.ReadAll(endpoint.r); err != nil || string(got) != "last" {
			t.Errorf("endpoint got %q, %v", got, err)
		}
	})

	t.Run("and ends on the one side when it breaks on the other", func(t *testing.T) {
		d := d.in(t)
		w := d.wire()
		w.send(handshake)
		w.head()
		d.tell("shop", "wake")
		d.awaitInFlight("shop", 1)
		resetConn(t, w.Conn)
		d.awaitInFlight("shop", 0)
	})
}

func TestRefusedUpgradeIsAnOrdinaryAnswer(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	w := d.wire()
	w.send("GET /upgrade HTTP/1.1\r\nHost: shop.default\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n" +
		"GET /status/418 HTTP/1.1\r\nHost: shop.default\r\n\r\n")
	if resp, _ := w.response("GET"); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("%s, want 426", resp.Status)
	}
	if resp, _ := w.response("GET"); resp.StatusCode != http.StatusTeapot {
		t.Errorf("%s, want that of the next request, 418", resp.Status)
	}
}
