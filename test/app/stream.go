package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// sse sends events, the first at once.
func (s *server) sse(w http.ResponseWriter, r *http.Request, p *params) {
	n, delay := p.integer("n", 10), p.duration("delay")
	if p.bad(w) {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	for i := 1; n == 0 || i <= n; i++ {
		if i > 1 {
			pause(r, delay)
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: event %[1]d\n\n", i); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

// webSocket sends every message back.
func (s *server) webSocket(w http.ResponseWriter, r *http.Request, _ *params) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any Origin: pages are served by others too
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	for {
		kind, in, err := ws.Reader(r.Context())
		if err != nil {
			return // a close frame was answered
		}
		out, err := ws.Writer(r.Context(), kind)
		if err != nil {
			return
		}
		if _, err := io.Copy(out, in); err != nil {
			return
		}
		if err := out.Close(); err != nil {
			return
		}
	}
}

// upgrade sends all bytes back, and "bye" at their end.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, _ *params) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "echo") || r.ProtoMajor != 1 {
		w.Header().Set("Upgrade", "echo")
		http.Error(w, "upgrade to echo, by HTTP/1.1", http.StatusUpgradeRequired)
		return
	}
	c, in := switchProtocols(w)
	defer c.Close()
	if _, err := io.Copy(c, in); err == nil {
		io.WriteString(c, "bye")
	}
}

// unasked101 answers 101 to everybody.
func (s *server) unasked101(w http.ResponseWriter, r *http.Request, _ *params) {
	if r.ProtoMajor != 1 {
		http.Error(w, "only HTTP/1.1 has a 101", http.StatusHTTPVersionNotSupported)
		return
	}
	c, in := switchProtocols(w)
	defer c.Close()
	io.Copy(io.Discard, in)
}

// switchProtocols answers 101 and takes the connection over, with what was read from it already.
func switchProtocols(w http.ResponseWriter) (net.Conn, *bufio.Reader) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "echo")
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // net/http's own HTTP/1.1 writers can
	}
	return c, rw.Reader
}
