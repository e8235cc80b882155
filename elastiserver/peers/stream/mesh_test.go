package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEveryTwoOfThreeHaveAStream(t *testing.T) {
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	c := newNode(t, nodeOptions{id: "c", authority: ca})
	nodes := []*node{a, b, c}
	introduce(nodes...)
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", i)))
	}
	for _, n := range nodes {
		for _, other := range nodes {
			if n == other {
				continue
			}
			link := n.handler.awaitPeer(other.mesh.own.ID)
			if link == nil {
				t.FailNow()
			}
			for _, line := range want {
				if err := link.Send([]byte(line)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, n := range nodes {
		if got := n.handler.statuses(); len(got) != 0 {
			t.Errorf("%s was asked for streams that it refused: %v", n.mesh.own.ID, got)
		}
		for _, other := range nodes {
			if n == other {
				continue
			}
			id := other.mesh.own.ID
			eventually(t, 5*time.Second, "all lines arrive", func() bool { return len(n.handler.linesOf(id)) == len(want) })
			if !slices.Equal(n.handler.linesOf(id), want) {
				t.Errorf("%s got other lines of %s than were sent", n.mesh.own.ID, id)
			}
			if begun, ended := n.handler.count(id); begun != 1 || ended != 0 {
				t.Errorf("%s: %d streams with %s began and %d ended, want 1 and 0", n.mesh.own.ID, begun, id, ended)
			}
			if got := n.handler.incarnation(id); got != other.mesh.Own().Incarnation {
				t.Errorf("%s takes %s for the process %q, want %q", n.mesh.own.ID, id, got, other.mesh.Own().Incarnation)
			}
		}
	}
}

// Four seconds are longer than any silence is borne: nothing but heartbeats keeps the stream.
func TestAStreamLivesWithNothingToSay(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	introduce(a, b)
	a.handler.awaitPeer("b")
	b.handler.awaitPeer("a")
	<-time.After(patience + time.Second)
	for _, n := range []struct {
		*node
		other string
	}{{a, "b"}, {b, "a"}} {
		if begun, ended := n.handler.count(n.other); begun != 1 || ended != 0 {
			t.Errorf("%d streams began and %d ended, want 1 and 0", begun, ended)
		}
		if lines := n.handler.linesOf(n.other); len(lines) != 0 {
			t.Errorf("heartbeats were given out: %q", lines)
		}
	}
}

func TestWhatWaitsIsSentBeforeAnEndInGoodOrder(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(a *node, link Link){
		"Close":        func(_ *node, link Link) { link.Close() },
		"the Run ends": func(a *node, _ Link) { a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newAuthority(t)
			a := newNode(t, nodeOptions{id: "a", authority: ca})
			b := newNode(t, nodeOptions{id: "b", authority: ca})
			introduce(a, b)
			link := a.handler.awaitPeer("b")
			b.handler.awaitPeer("a")
			back := b.handler.link("a")
			talked := make(chan struct{})
			go func() { // what comes from there meanwhile takes nothing back
				defer close(talked)
				for tick := time.Tick(time.Millisecond); back.Send([]byte(strings.Repeat("y", 10000))) == nil; {
					<-tick
				}
			}()
			const lines = 3000
			for range lines {
				if err := link.Send([]byte(strings.Repeat("x", 1000))); err != nil {
					t.Fatal(err)
				}
			}
			end(a, link)
			if err := link.Send([]byte("late")); err == nil {
				t.Error("a line was taken after the end")
			}
			b.handler.awaitEnd("a", 1, 5*time.Second)
			<-talked
			if got := len(b.handler.linesOf("a")); got != lines {
				t.Errorf("%d lines arrived, want %d", got, lines)
			}
		})
	}
}

func TestAMemberIsDialledAsSoonAsItHasAnAddress(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	a.mesh.Set([]Member{{ID: "b"}, {ID: "c"}})
	<-time.After(100 * time.Millisecond) // now that is known, in all likelihood
	a.mesh.Set([]Member{b.member()})
	a.handler.awaitPeer("b")
	b.handler.awaitPeer("a")
	a.mesh.Set(nil) // the cache may be wrong: a stream is proof of a process
	if err := a.handler.link("b").Send([]byte("{}")); err != nil {
		t.Errorf("the stream ended with the membership: %v", err)
	}
	eventually(t, 5*time.Second, "the line arrives", func() bool { return len(b.handler.linesOf("a")) == 1 })
	b.stop()
	a.handler.awaitEnd("b", 1, 5*time.Second)
	eventually(t, 5*time.Second, "who is no member is not dialled any more", func() bool {
		a.mesh.mu.Lock()
		defer a.mesh.mu.Unlock()
		return len(a.mesh.dialers) == 0
	})
}

func TestANewProcessTakesThePlaceOfTheOneBefore(t *testing.T) {
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	old := dialNode(t, b, ca)
	old.open(t, "pod:a")
	old.say(t, hello("a", "one")+"first\n")
	eventually(t, 5*time.Second, "its line arrives", func() bool { return len(b.handler.linesOf("a")) == 1 })
	for i, incarnation := range []string{"two", "two"} { // a stream of the same process does as well
		next := dialNode(t, b, ca)
		next.open(t, "pod:a")
		next.say(t, hello("a", incarnation)+"again\n")
		eventually(t, time.Second, "the new one is connected", func() bool {
			begun, ended := b.handler.count("a")
			return begun == i+2 && ended == i+1 && b.handler.incarnation("a") == incarnation
		})
		old.awaitEnd(t)
		old = next
	}
	eventually(t, time.Second, "its lines arrive", func() bool { return len(b.handler.linesOf("a")) == 3 })
}

func TestTheNextStreamWaitsForTheEndOfTheOneBefore(t *testing.T) {
	ca := newAuthority(t)
	release := make(chan struct{})
	b := newNode(t, nodeOptions{id: "b", authority: ca, received: func(Peer, []byte) error {
		<-release
		return nil
	}})
	var strangers []*stranger
	for i := range 3 {
		s := dialNode(t, b, ca)
		s.open(t, "pod:a")
		s.say(t, hello("a", fmt.Sprint(i))+"line\n")
		strangers = append(strangers, s)
		if i == 0 {
			eventually(t, time.Second, "its line is being received", func() bool { return len(b.handler.linesOf("a")) == 1 })
		}
	}
	strangers[0].awaitEnd(t)
	if begun, ended := b.handler.count("a"); begun != 1 || ended != 0 || b.handler.incarnation("a") != "0" {
		t.Errorf("%d streams began and %d ended while a line of the first was being received", begun, ended)
	}
	close(release)
	eventually(t, time.Second, "one takes the place of all", func() bool {
		begun, ended := b.handler.count("a")
		return begun == ended+1 && b.handler.incarnation("a") != "0" && len(b.handler.linesOf("a")) == begun
	})
}

func TestAProcessThatRestartsIsFound(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", incarnation: "one", authority: ca})
	introduce(a, b)
	a.handler.awaitPeer("b")
	b.stop()
	a.handler.awaitEnd("b", 1, 5*time.Second)
	b = newNode(t, nodeOptions{id: "b", incarnation: "two", authority: ca})
	introduce(a, b)
	eventually(t, 5*time.Second, "the new process is connected", func() bool { return a.handler.incarnation("b") == "two" })
}
