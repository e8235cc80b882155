package stream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Path is where a Mesh is served.
const Path = "/peers/v1/stream"

const (
	protocol    = "dormouse-peers" // the upgrade's
	maxHalfOpen = 64
	recheck     = 30 * time.Second
)

var _ http.Handler = (*Mesh)(nil)

// ServeHTTP answers a request for a stream, and returns when that stream is over.
func (m *Mesh) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status, detail := unfit(r); status != 0 {
		m.refuse(w, status, detail)
		return
	}
	m.mu.Lock()
	enter := m.enter
	if enter == nil {
		m.mu.Unlock()
		m.refuse(w, http.StatusServiceUnavailable, "This activator is starting or stopping.")
		return
	}
	// Whoever serves us may end the request's context before the streams are to end.
	ctx, leave := enter(context.WithoutCancel(r.Context()))
	m.mu.Unlock()
	defer leave()

	finished, ok := m.begin(r)
	if !ok {
		m.refuse(w, http.StatusServiceUnavailable, "Too many streams are being opened.")
		return
	}
	peer, c := m.answer(ctx, w, r)
	finished()
	if c == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	var doubter sync.WaitGroup
	defer doubter.Wait()
	defer cancel()
	doubter.Go(func() {
		m.doubt(ctx, r, peer)
		cancel()
	})
	_ = m.serve(ctx, peer, c) // it was logged
}

// doubt returns when a peer that is no member of ours is known to have no authority any more, or ctx ends. Whoever got hold of
// a pod's token would otherwise go on after that pod is gone, and the token with it. A member is not asked for: its token
// is replaced long before its stream ends.
func (m *Mesh) doubt(ctx context.Context, r *http.Request, peer Peer) {
	tick := time.NewTicker(m.recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		_, member := m.pods[peer.ID]
		m.mu.Unlock()
		if member {
			continue
		}
		looking, done := context.WithTimeout(ctx, handshakeTime)
		_, err := m.options.Authorizer.Peer(r.WithContext(looking))
		done()
		if err != nil && statusOf(err) != http.StatusServiceUnavailable && ctx.Err() == nil {
			m.logger.Warn("a peer is no member, and has no authority any more", zap.String("peer", peer.Name), zap.String("id", peer.ID))
			return
		}
	}
}

// begin bounds how many requests for a stream are looked at. Those from members' addresses, of which their server keeps few
// connections, are not counted: strangers, whose tokens take as long to be looked at, do not keep members out.
func (m *Mesh) begin(r *http.Request) (finished func(), ok bool) {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && m.Knows(from.Addr()) {
		return func() {}, true
	}
	select {
	case m.half <- struct{}{}:
		return func() { <-m.half }, true
	default:
		return nil, false
	}
}

// answer does the handshake with who dials us. The connection is nil if it came to nothing, which was told then.
func (m *Mesh) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (Peer, *connection) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	id, err := m.options.Authorizer.Peer(r.WithContext(ctx))
	if err != nil {
		m.logger.Debug("request for a stream without authority", zap.String("client", r.RemoteAddr), zap.Error(err))
		m.refuse(w, statusOf(err), "Only activators may open a stream, with a token of their own.")
		return Peer{}, nil
	}
	if id == "" || id >= m.own.ID {
		m.refuse(w, http.StatusConflict, "Of two activators the one of the lesser id dials.")
		return Peer{}, nil
	}
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		m.logger.Error("a connection cannot become a stream", zap.Error(err))
		m.refuse(w, http.StatusServiceUnavailable, "This server cannot upgrade a connection.")
		return Peer{}, nil
	}
	c := newConnection(conn)
	stop := context.AfterFunc(ctx, c.cutOff)
	defer stop()
	peer, status, err := m.greet(c, id, buffer.Reader.Buffered())
	if err != nil {
		c.cutOff()
		m.options.Refused(status)
		m.logger.Warn("stream refused after its upgrade", zap.String("client", r.RemoteAddr), zap.String("id", id), zap.Error(err))
		return Peer{}, nil
	}
	return peer, c
}

// greet exchanges hellos with who has proven to be id, and has sent so many bytes before he was told to.
func (m *Mesh) greet(c *connection, id string, early int) (peer Peer, status int, err error) {
	if early > 0 {
		return Peer{}, http.StatusBadRequest, errors.New("the peer did not wait for an answer")
	}
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
	if _, err := c.Write([]byte(upgrade)); err != nil {
		return Peer{}, http.StatusBadRequest, err
	}
	if err := c.sendHello(m.own); err != nil {
		return Peer{}, http.StatusBadRequest, err
	}
	if peer, err = c.readHello(); err != nil {
		return Peer{}, http.StatusBadRequest, err
	}
	if peer.ID != id {
		return Peer{}, http.StatusForbidden, errors.New("the peer's hello is not its own")
	}
	return peer, 0, nil
}

// refuse answers with a problem document.
func (m *Mesh) refuse(w http.ResponseWriter, status int, detail string) {
	m.options.Refused(status)
	h := w.Header()
	h.Set("Connection", "close") // no answer waits for a body
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusUpgradeRequired:
		h.Set("Connection", "Upgrade, close")
		h.Set("Upgrade", protocol)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	body, err := json.Marshal(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
	if err != nil {
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// unfit tells what is wrong with a request, by what costs nothing to look at.
func unfit(r *http.Request) (status int, detail string) {
	switch {
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, "A stream is opened with GET."
	case r.ProtoMajor != 1 || !hasToken(r.Header["Connection"], "Upgrade") || !hasToken(r.Header["Upgrade"], protocol):
		return http.StatusUpgradeRequired, "A stream is an upgrade of HTTP/1.1 to " + protocol + "."
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return http.StatusBadRequest, "A request for a stream has no body."
	case len(r.Header["Authorization"]) != 1:
		return http.StatusUnauthorized, "Only activators may open a stream, with a token of their own."
	}
	return 0, ""
}

// hasToken looks for an element of a list (RFC 9110 section 5.6.1), whatever its case.
func hasToken(fields []string, token string) bool {
	for _, field := range fields {
		for element := range strings.SplitSeq(field, ",") {
			if strings.EqualFold(strings.TrimSpace(element), token) {
				return true
			}
		}
	}
	return false
}

func statusOf(err error) int {
	if e, ok := errors.AsType[interface {
		error
		StatusCode() int
	}](err); ok {
		if s := e.StatusCode(); s == http.StatusUnauthorized || s == http.StatusForbidden {
			return s
		}
	}
	return http.StatusServiceUnavailable
}
