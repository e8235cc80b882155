package stream

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy forwards connections, until it is told to be a hole: then it reads nothing, writes nothing and closes nothing.
type proxy struct {
	address netip.AddrPort
	mu      sync.Mutex
	hole    chan struct{} // closed when it is one no more; nil: it is none
	conns   map[*net.TCPConn]bool
}

func newProxy(t *testing.T, to func() netip.AddrPort) *proxy {
	t.Helper()
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: netip.MustParseAddrPort(listener.Addr().String()), conns: map[*net.TCPConn]bool{}}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			in, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			p.keep(in)
			out, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to()))
			if err != nil {
				_ = in.Close()
				continue
			}
			p.keep(out)
			tasks.Go(func() { p.forward(in, out) })
			tasks.Go(func() { p.forward(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.heal()
		p.cut()
		tasks.Wait()
	})
	return p
}

func (p *proxy) keep(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
}

func (p *proxy) forward(from, to *net.TCPConn) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
		delete(p.conns, to)
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		hole := p.hole
		p.mu.Unlock()
		if hole != nil {
			<-hole
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			<-time.After(10 * time.Millisecond)
			return
		}
		if err != nil {
			return
		}
	}
}

// swallow makes it a hole, and heal a proxy again.
func (p *proxy) swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole == nil {
		p.hole = make(chan struct{})
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole != nil {
		close(p.hole)
		p.hole = nil
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

func TestAPartitionIsNoticedByBothSides(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	between := newProxy(t, func() netip.AddrPort { return b.address })
	a.mesh.Set([]Member{{ID: "b", Name: "pod-b", Addresses: []netip.AddrPort{between.address}}})
	a.handler.awaitPeer("b")
	b.handler.awaitPeer("a")

	between.swallow()
	began := time.Now()
	a.handler.awaitEnd("b", 1, patience+500*time.Millisecond)
	b.handler.awaitEnd("a", 1, patience+500*time.Millisecond-time.Since(began))
	t.Logf("noticed by both after %v", time.Since(began))

	between.heal()
	eventually(t, handshakeTime+mostBackOff+time.Second, "they find each other again", func() bool {
		begun, _ := a.handler.count("b")
		return begun >= 2 && b.handler.link("a") != nil
	})
}

func TestASlowReaderIsCutAndConnectedAnew(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	release := make(chan struct{})
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca, received: func(Peer, []byte) error {
		<-release
		return nil
	}})
	introduce(a, b)
	link := a.handler.awaitPeer("b")
	line := []byte(strings.Repeat("x", 64<<10))
	var sent int
	var err error
	for err == nil && sent < 1<<30 {
		err = link.Send(line)
		sent += len(line)
	}
	if !errors.Is(err, errSlow) {
		t.Errorf("after %d bytes got %v, want %v", sent, err, errSlow)
	}
	if again := link.Send([]byte("{}")); again == nil {
		t.Error("a stream that is over takes a line")
	}
	a.handler.awaitEnd("b", 1, time.Second)
	close(release)
	eventually(t, 5*time.Second, "they find each other again", func() bool {
		begun, _ := b.handler.count("a")
		return begun >= 2 && a.handler.link("b") != nil
	})
}

// The queue is not full, and the peer sends its heartbeats, but takes nothing.
func TestAPeerThatTakesNothingIsCut(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	s := dialNode(t, b, ca)
	tcp, ok := s.NetConn().(*net.TCPConn)
	if !ok {
		t.Fatal("not over TCP")
	}
	_ = tcp.SetReadBuffer(16 << 10)
	s.open(t, "pod:a")
	s.say(t, hello("a", "x"))
	l, ok := b.handler.awaitPeer("a").(*link)
	if !ok {
		t.FailNow()
	}
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	began := time.Now()
	for more := time.Tick(2 * time.Millisecond); l.ended() == nil && time.Since(began) < 3*patience; {
		select {
		case <-beats.C:
			_, _ = s.Write([]byte("\n"))
		case <-more:
			l.mu.Lock()
			waiting := len(l.queue) + l.writing
			l.mu.Unlock()
			if waiting < maxQueue/2 {
				_ = l.Send([]byte(strings.Repeat("x", maxQueue/8)))
			}
		}
	}
	if took := time.Since(began); !errors.Is(l.ended(), os.ErrDeadlineExceeded) {
		t.Errorf("after %v the stream's end is %v, want a deadline", took, l.ended())
	}
	b.handler.awaitEnd("a", 1, time.Second)
}
