package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestSSEFlushesEachEvent(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		resp, err := c.Do(request(t, "GET", app.URL("/sse?delay=1h"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		const want = "id: 1\ndata: event 1\n\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Errorf("first event %q, %v", got, err)
		}
		if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Errorf("type %s", kind)
		}
	})
}

func TestSSESendsAsManyAsAskedFor(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for query, want := range map[string]int{"": 10, "?n=3&delay=1ms": 3} {
			if _, body := get(t, c, app.URL("/sse"+query)); strings.Count(body, "\n\n") != want {
				t.Errorf("%s: %q", query, body)
			}
		}
		resp, err := c.Do(request(t, "GET", app.URL("/sse?n=0"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Errorf("endless events ended after %d bytes: %v", n, err)
		}
	})
}

func TestWebSocketSendsMessagesBack(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	ws, _, err := websocket.Dial(t.Context(), app.URL("/ws"), &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://elsewhere"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	for _, sent := range []struct {
		kind websocket.MessageType
		text string
	}{{websocket.MessageText, "hello"}, {websocket.MessageBinary, ""}, {websocket.MessageBinary, letters(1 << 20)}} {
		go ws.Write(t.Context(), sent.kind, []byte(sent.text))
		kind, got, err := ws.Read(t.Context())
		if err != nil || kind != sent.kind || string(got) != sent.text {
			t.Errorf("%d bytes of %v came back as %d of %v, %v", len(sent.text), sent.kind, len(got), kind, err)
		}
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestUpgradeEchoesUntilHalfCloseThenSaysBye(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	c := dial(t, app)
	// The first bytes of the new protocol come with the request: what net/http has read ahead must not be lost.
	if _, err := io.WriteString(c, "GET /upgrade HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := resp.Header
	if resp.StatusCode != 101 || h.Get("Upgrade") != "echo" || h.Get("Connection") != "Upgrade" || h.Get("X-App-Name") != "app" {
		t.Errorf("answer %d %v", resp.StatusCode, h)
	}
	for _, part := range []string{"early", "later"} {
		got := make([]byte, len(part))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != part {
			t.Fatalf("got %q, %v", got, err)
		}
		if part == "early" {
			io.WriteString(c, "later")
		}
	}
	go func() {
		io.Copy(c, bytes.NewReader([]byte(letters(8<<20))))
		c.CloseWrite()
	}()
	if rest, err := io.ReadAll(in); err != nil || string(rest) != letters(8<<20)+"bye" {
		t.Errorf("then %d bytes, or others, %v", len(rest), err)
	}
}

func TestUpgradeIsRequiredToBeAskedFor(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		if resp, _ := get(t, c, app.URL("/upgrade")); resp.StatusCode != 426 || resp.Header.Get("Upgrade") != "echo" {
			t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
		}
	})
}

func TestUnasked101IsSentToAnybody(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	c := dial(t, app)
	fmt.Fprint(c, "GET /unasked-101 HTTP/1.1\r\nHost: app\r\n\r\n")
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}
