package stream

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// recorder is a Handler that checks the order of calls.
type recorder struct {
	t        *testing.T
	received func(peer Peer, line []byte) error // or nil

	mu      sync.Mutex // guards the following
	links   map[string]Link
	peers   map[string]Peer // connected
	ended   map[string]int  // Disconnected, by id
	begun   map[string]int
	lines   map[string][]string
	refused []int
}

func newRecorder(t *testing.T, received func(Peer, []byte) error) *recorder {
	return &recorder{
		t: t, received: received, links: map[string]Link{}, peers: map[string]Peer{}, ended: map[string]int{}, begun: map[string]int{},
		lines: map[string][]string{},
	}
}

func (r *recorder) Connected(peer Peer, link Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.peers[peer.ID]; ok {
		r.t.Errorf("connected to %v while connected to %v", peer, old)
	}
	r.peers[peer.ID], r.links[peer.ID] = peer, link
	r.begun[peer.ID]++
}

func (r *recorder) Received(peer Peer, line []byte) error {
	r.mu.Lock()
	if r.peers[peer.ID] != peer {
		r.t.Errorf("a line of %v, who is not connected", peer)
	}
	r.lines[peer.ID] = append(r.lines[peer.ID], string(line))
	r.mu.Unlock()
	if r.received != nil {
		return r.received(peer, line)
	}
	return nil
}

func (r *recorder) Disconnected(peer Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[peer.ID] != peer {
		r.t.Errorf("disconnected from %v, who was not connected", peer)
	}
	delete(r.peers, peer.ID)
	delete(r.links, peer.ID)
	r.ended[peer.ID]++
}

func (r *recorder) refuse(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, status)
}

func (r *recorder) link(id string) Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.links[id]
}

func (r *recorder) incarnation(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[id].Incarnation
}

func (r *recorder) count(id string) (begun, ended int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun[id], r.ended[id]
}

func (r *recorder) linesOf(id string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines[id])
}

func (r *recorder) statuses() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refused)
}

func (r *recorder) awaitPeer(id string) Link {
	r.t.Helper()
	eventually(r.t, 5*time.Second, "a stream with "+id, func() bool { return r.link(id) != nil })
	return r.link(id)
}

func (r *recorder) awaitEnd(id string, ended int, within time.Duration) {
	r.t.Helper()
	eventually(r.t, within, "the end of the stream with "+id, func() bool {
		_, n := r.count(id)
		return n >= ended
	})
}
