package stream

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
)

// heard is a Receiver that writes down.
type heard struct {
	mu       sync.Mutex
	link     peers.Link // guarded by mu, as the following
	id       peers.PeerID
	messages []peers.Message
	ended    bool
}

func (h *heard) Connected(id peers.PeerID, l peers.Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id, h.link = id, l
}

func (h *heard) Received(id peers.PeerID, m peers.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id == h.id {
		h.messages = append(h.messages, m)
	}
}

func (h *heard) Disconnected(id peers.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = id == h.id
}

func (h *heard) is(f func() bool) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return f()
	}
}

func TestMessagesAreLines(t *testing.T) {
	ca := newAuthority(t)
	var a, b heard
	na := newNode(t, nodeOptions{id: "a", incarnation: "1", authority: ca, handler: Messages(&a)})
	nb := newNode(t, nodeOptions{id: "b", incarnation: "2", authority: ca, handler: Messages(&b)})
	introduce(na, nb)
	eventually(t, 5*time.Second, "a stream", a.is(func() bool { return a.link != nil }))
	eventually(t, 5*time.Second, "a stream", b.is(func() bool { return b.link != nil }))
	if a.id != peers.NewPeerID("b", "2") || b.id != peers.NewPeerID("a", "1") {
		t.Errorf("the peers are %q and %q", a.id, b.id)
	}
	for term := range int64(3) {
		if err := a.link.Send(peers.Message{Lead: &peers.Lead{Term: term + 1}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Second, "all messages arrive", b.is(func() bool { return len(b.messages) == 3 }))
	for i, m := range b.messages {
		if m.Lead == nil || m.Lead.Term != int64(i+1) {
			t.Errorf("message %d is %+v", i, m)
		}
	}
	if err := a.link.Send(peers.Message{Answer: &peers.Answer{Problem: strings.Repeat("x", peers.MaxLine)}}); err == nil {
		t.Error("a message that is too long for a line was taken")
	}
	eventually(t, 5*time.Second, "the end of the stream", a.is(func() bool { return a.ended }))
}

func TestMessagesOfOtherVersions(t *testing.T) {
	ca := newAuthority(t)
	var b heard
	n := newNode(t, nodeOptions{id: "b", authority: ca, handler: Messages(&b)})
	s := dialNode(t, n, ca)
	s.open(t, "pod:a")
	s.say(t, hello("a", "x")+`{"invented":{"later":1}}`+"\n\n"+`{"lead":{"term":7,"later":1},"later":1}`+"\n")
	eventually(t, time.Second, "what is known arrives", b.is(func() bool { return len(b.messages) == 1 && b.messages[0].Lead.Term == 7 }))
	s.say(t, "nonsense\n")
	s.awaitEnd(t)
	eventually(t, time.Second, "the stream ends", b.is(func() bool { return b.ended }))
}
