package stream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	handshakeTime = 3 * time.Second
	maxHandshake  = 64 << 10 // bytes that are read before the stream is open
	maxHello      = 4 << 10
	maxName       = 253       // of each field of a hello: what Kubernetes allows for a name
	maxLine       = 1<<20 - 1 // bytes, without the end
	readAhead     = 16 << 10  // what a TLS record holds at most
	keepBuffer    = 64 << 10  // a buffer that has grown past it is not kept
)

var (
	errLongLine = errors.New("the peer sent a line that is too long")
	errTooMuch  = errors.New("the peer sent too much before its hello")
	errHello    = errors.New("the peer sent no hello")
)

// connection reads lines from the other end, by one goroutine at a time.
type connection struct {
	net.Conn
	lines *bufio.Reader
	long  []byte // a line that is longer than what lines can show
	// left is how many bytes may still be read, or negative: any number. patience is for how long a read may wait; zero
	// leaves the deadline alone.
	left     int
	patience time.Duration
}

// newConnection returns a connection at its handshake, whose time the caller bounds.
func newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn, left: maxHandshake}
	c.lines = bufio.NewReaderSize(c, readAhead)
	return c
}

// Read reads for c.lines.
func (c *connection) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errTooMuch
	}
	if c.left > 0 {
		p = p[:min(len(p), c.left)]
	}
	if c.patience > 0 {
		c.Conn.SetReadDeadline(time.Now().Add(c.patience))
	}
	n, err := c.Conn.Read(p)
	if c.left > 0 {
		c.left -= n
	}
	return n, err
}

// open ends the handshake: from now on only silence is bounded.
func (c *connection) open() {
	c.left, c.patience = -1, patience
}

// next returns a line without its end, valid until the next call.
func (c *connection) next(limit int) ([]byte, error) {
	if cap(c.long) > keepBuffer {
		c.long = nil
	}
	c.long = c.long[:0]
	for {
		part, err := c.lines.ReadSlice('\n')
		line := part
		if len(c.long) > 0 || errors.Is(err, bufio.ErrBufferFull) {
			c.long = append(c.long, part...)
			line = c.long
		}
		switch {
		case len(bytes.TrimSuffix(line, []byte{'\n'})) > limit:
			return nil, errLongLine
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// cutOff ends the connection without a word: saying good-bye in TLS could wait for a peer that reads nothing.
func (c *connection) cutOff() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.Conn.Close()
}

// greeting is a stream's first line in either direction.
type greeting struct {
	Hello *Peer `json:"hello"`
}

func (c *connection) sendHello(own Peer) error {
	line, err := json.Marshal(greeting{Hello: &own})
	if err != nil {
		return fmt.Errorf("write the hello: %w", err)
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send the hello: %w", err)
	}
	return nil
}

func (c *connection) readHello() (Peer, error) {
	line, err := c.next(maxHello)
	if err != nil {
		return Peer{}, fmt.Errorf("read the hello: %w", err)
	}
	return parseHello(line)
}

func parseHello(line []byte) (Peer, error) {
	var g greeting
	if err := json.Unmarshal(line, &g); err != nil {
		return Peer{}, errHello // the error would show what a stranger has sent
	}
	p := g.Hello
	if p == nil || p.ID == "" || p.Incarnation == "" || strings.Contains(p.Incarnation, "/") || max(len(p.ID), len(p.Name), len(p.Incarnation), len(p.Version)) > maxName {
		return Peer{}, errHello
	}
	return *p, nil
}
