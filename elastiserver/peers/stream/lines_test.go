package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestLinesThatEndAStream(t *testing.T) {
	ca := newAuthority(t)
	b := newNode(t, nodeOptions{id: "b", authority: ca, received: func(_ Peer, line []byte) error {
		if string(line) == "nonsense" {
			return errors.New("not understood")
		}
		return nil
	}})
	for i, text := range []string{
		strings.Repeat("x", maxLine+readAhead+1), // and no end
		strings.Repeat("x", maxLine+1) + "\n",
		strings.Repeat("x", 2*maxLine) + "\n",
		"nonsense\n",
	} {
		s := dialNode(t, b, ca)
		s.open(t, "pod:a")
		s.say(t, hello("a", "x"))
		b.handler.awaitPeer("a")
		_, _ = s.Write([]byte(text)) // it may be cut while it is sent
		if took := s.awaitEnd(t); took > time.Second {
			t.Errorf("%.20q was cut after %v", text, took)
		}
		b.handler.awaitEnd("a", i+1, time.Second)
	}
}

func TestTheLongestLineAndEmptyOnes(t *testing.T) {
	ca := newAuthority(t)
	a := newNode(t, nodeOptions{id: "a", authority: ca})
	b := newNode(t, nodeOptions{id: "b", authority: ca})
	introduce(a, b)
	link := a.handler.awaitPeer("b")
	long := strings.Repeat("x", maxLine)
	for _, line := range []string{long, "{}", long} {
		if err := link.Send([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 5*time.Second, "all arrive", func() bool { return len(b.handler.linesOf("a")) == 3 })
	if got := b.handler.linesOf("a"); got[0] != long || got[1] != "{}" || got[2] != long {
		t.Error("other lines arrived than were sent")
	}
}

// A line that cannot be sent must not be lost without anybody's knowing.
func TestALineThatCannotBeSentEndsTheStream(t *testing.T) {
	for _, line := range []string{"", "a\nb", "a\n", strings.Repeat("x", maxLine+1)} {
		near, far := net.Pipe()
		l := newLink(newConnection(near))
		if err := l.Send([]byte(line)); !errors.Is(err, errLine) {
			t.Errorf("%.10q: got %v", line, err)
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%.10q: the connection was not closed: %v", line, err)
		}
		_ = far.Close()
	}
}

// played is a connection that has said all it will say.
type played struct {
	net.Conn
	from io.Reader
}

func (p played) Read(b []byte) (int, error)     { return p.from.Read(b) }
func (p played) Write(b []byte) (int, error)    { return len(b), nil }
func (played) Close() error                     { return nil }
func (played) SetDeadline(time.Time) error      { return nil }
func (played) SetReadDeadline(time.Time) error  { return nil }
func (played) SetWriteDeadline(time.Time) error { return nil }

// parts gives out n bytes at a time at most.
type parts struct {
	io.Reader
	n int
}

func (p parts) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.n)]) }

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\n\nb\nrest"), 1, 3)
	f.Add([]byte(strings.Repeat("x", readAhead)+"\n"+strings.Repeat("y", 2*readAhead+1)+"\nz\n"), 100, maxLine)
	f.Add([]byte(strings.Repeat("x", 40)+"\n"), 7, 39)
	f.Fuzz(func(t *testing.T, text []byte, n, limit int) {
		if n < 1 || limit < 0 || limit > maxLine {
			t.Skip()
		}
		c := newConnection(played{from: parts{bytes.NewReader(text), n}})
		c.open()
		whole := bytes.Split(text, []byte{'\n'})
		rest := whole[len(whole)-1]
		for _, want := range whole[:len(whole)-1] {
			got, err := c.next(limit)
			if len(want) > limit {
				if !errors.Is(err, errLongLine) {
					t.Fatalf("a line of %d bytes, %d are allowed: got %v", len(want), limit, err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}
		_, err := c.next(limit)
		want := io.EOF
		switch {
		case len(rest) > limit:
			want = errLongLine
		case len(rest) > 0:
			want = io.ErrUnexpectedEOF
		}
		if !errors.Is(err, want) {
			t.Fatalf("after the last line got %v, want %v", err, want)
		}
	})
}

// endless says something, and then the same again and again.
type endless struct {
	first, again string
	said         int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.first)
	e.first = e.first[n:]
	if n == 0 {
		n = copy(b, e.again)
	}
	e.said += n
	return n, nil
}

func TestAnAnswerWithoutEndIsGivenUp(t *testing.T) {
	for _, e := range []*endless{
		{first: "HTTP/1.1 101 x\r\n", again: "a: b\r\n"},
		{again: "HTTP/1.1 101 x"},
		{again: "HTTP/1.1 100 Continue\r\n\r\n"},
		{first: "HTTP/1.1 503 x\r\n\r\n", again: "body"},
	} {
		if err := newConnection(played{from: e}).ask(t.Context(), "x", "token"); err == nil {
			t.Errorf("%q, and %q again and again, is taken for an upgrade", e.first, e.again)
		}
		if e.said > maxHandshake {
			t.Errorf("%d bytes of %q were read", e.said, e.again)
		}
	}
}

// FuzzAnswer plays a dialled side to ask and readHello.
func FuzzAnswer(f *testing.F) {
	const good = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dormouse-peers\r\n\r\n"
	f.Add([]byte(good + hello("b", "x")))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\n" + good + hello("b", "x")))
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 99999999\r\n\r\nx"))
	f.Add([]byte("HTTP/1.1 101 x\r\nTransfer-Encoding: chunked\r\nUpgrade: dormouse-peers\r\n\r\n5\r\n" + hello("b", "x")))
	f.Add([]byte("\xff\x00garbage"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := newConnection(played{from: bytes.NewReader(text)})
		if err := c.ask(t.Context(), "x", "token"); err != nil {
			return
		}
		if !bytes.HasPrefix(text, []byte("HTTP/1.")) || !bytes.Contains(bytes.ToLower(text), []byte("dormouse-peers")) {
			t.Fatalf("%q is taken for an upgrade", text)
		}
		peer, err := c.readHello()
		if err != nil {
			return
		}
		if peer.ID == "" || peer.Incarnation == "" || strings.Contains(peer.Incarnation, "/") ||
			max(len(peer.ID), len(peer.Name), len(peer.Incarnation), len(peer.Version)) > maxName {
			t.Fatalf("%+v is no peer", peer)
		}
	})
}

// FuzzHello checks that a hello means the same to who reads what we write.
func FuzzHello(f *testing.F) {
	f.Add([]byte(hello("a", "x")))
	f.Add([]byte(`{"hello":{"id":"a\u0000\n","incarnation":"x"},"more":[1]}`))
	f.Add([]byte(`{"HELLO":{"ID":"a","incarnation":"x"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		peer, err := parseHello(line)
		if err != nil {
			return
		}
		var sent bytes.Buffer
		if err := newConnection(copied{played{}, &sent}).sendHello(peer); err != nil {
			t.Fatal(err)
		}
		again, err := parseHello(sent.Bytes())
		if err != nil || again != peer {
			t.Fatalf("%+v became %+v, %v", peer, again, err)
		}
		if n := bytes.Count(sent.Bytes(), []byte{'\n'}); n != 1 {
			t.Fatalf("%d lines were sent for one hello", n)
		}
	})
}

// copied keeps what is written.
type copied struct {
	played
	to *bytes.Buffer
}

func (c copied) Write(b []byte) (int, error) { return c.to.Write(b) }
