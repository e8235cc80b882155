package traffic

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Front is one life of an activator: a process from its start to its end. Its address may have more than one.
type Front struct {
	Name, Address string

	shared  bool            // by all activators: see NewShared
	killed  atomic.Bool     // before the signal was sent
	kept    *http.Transport // connections that are used again
	single  *http.Transport // a connection for each request
	streams *http.Transport // HTTP/2 in clear text
}

// NewFront returns a front that listens at an address, under a name for reports.
func NewFront(name, address string) *Front {
	f := &Front{Name: name, Address: address}
	f.kept, f.single, f.streams = f.transport(), f.transport(), f.transport()
	f.single.DisableKeepAlives = true
	f.streams.Protocols = new(http.Protocols)
	f.streams.Protocols.SetUnencryptedHTTP2(true)
	return f
}

// NewShared returns a front that stands for all activators: the address of a Service. Nobody can tell from here which of
// them a connection leads to; who knows tells [Recorder.Excuse]. A connection that is not made is tried again for a while:
// no request was sent on it, and the node's rules lead to an activator that has died until they are written anew.
func NewShared(name, address string) *Front {
	f := NewFront(name, address)
	f.shared = true
	return f
}

// Kill says that the process is about to be ended without warning. It is called before the signal is sent.
func (f *Front) Kill() { f.killed.Store(true) }

// Killed reports whether Kill was called.
func (f *Front) Killed() bool { return f.killed.Load() }

// CloseIdle closes connections that no request uses.
func (f *Front) CloseIdle() {
	for _, t := range []*http.Transport{f.kept, f.single, f.streams} {
		t.CloseIdleConnections()
	}
}

func (f *Front) transport() *http.Transport {
	return &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 64, MaxIdleConns: 0,
		IdleConnTimeout: 20 * time.Second, // sooner than the activator's, so that it never closes one that is about to be used
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{},
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
	}
}

// dial connects to the front, whatever a URL's host says.
func (f *Front) dial(ctx context.Context) (net.Conn, error) {
	if !f.shared {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", f.Address)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", f.Address)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// Fronts is what a load balancer knows: where requests may be sent. Its zero value has none.
type Fronts struct {
	mu    sync.Mutex // guards the following
	all   []*Front
	since []*Front // all that ever were
}

// Add has new requests sent to a front.
func (fs *Fronts) Add(f *Front) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all, fs.since = append(fs.all, f), append(fs.since, f)
}

// Remove has no new requests sent to a front.
func (fs *Fronts) Remove(f *Front) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = slices.DeleteFunc(fs.all, func(o *Front) bool { return o == f })
}

// Close closes the connections of all fronts that ever were, once nothing uses them.
func (fs *Fronts) Close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.since {
		f.CloseIdle()
	}
}

// any returns a front at random, or nil while there is none.
func (fs *Fronts) any() *Front {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.all) == 0 {
		return nil
	}
	return fs.all[rand.IntN(len(fs.all))]
}
