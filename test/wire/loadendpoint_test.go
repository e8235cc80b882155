package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// loadEndpoint is an endpoint that answers requests as their plans say, until it dies.
type loadEndpoint struct {
	scaling.Endpoint
	load     *load
	listener net.Listener
	all      sync.WaitGroup // of its goroutines

	mu    sync.Mutex // guards the following
	dead  bool
	conns map[net.Conn]struct{}
}

func (l *load) newEndpoint() *loadEndpoint {
	e := &loadEndpoint{load: l, listener: listen(l.t), conns: make(map[net.Conn]struct{})}
	e.Endpoint = scaling.Endpoint{
		ID: fmt.Sprint("endpoint-", l.serial.Add(1)), Address: e.listener.Addr().String(),
		Protocol: scaling.ProtocolHTTP1, Capacity: loadCapacity,
	}
	e.all.Go(e.accept)
	return e
}

// die closes the listener and resets every connection.
func (e *loadEndpoint) die() {
	_ = e.listener.Close()
	e.mu.Lock()
	e.dead = true
	for c := range e.conns {
		reset(c)
	}
	e.mu.Unlock()
	e.all.Wait()
}

// open returns how many connections it has.
func (e *loadEndpoint) open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

func (e *loadEndpoint) accept() {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		dead := e.dead
		e.conns[c] = struct{}{}
		e.mu.Unlock()
		if dead {
			reset(c)
		}
		e.all.Go(func() {
			e.serve(c)
			_ = c.Close()
			e.mu.Lock()
			delete(e.conns, c)
			e.mu.Unlock()
		})
	}
}

// serve answers the requests of one connection.
func (e *loadEndpoint) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			if !isEnd(err) {
				e.load.fault("an endpoint was sent what is no request: %v", err)
			}
			return
		}
		e.load.carried.Add(1)
		p, err := planOf(request)
		if err != nil {
			e.load.fault("an endpoint was sent another request than its client's: %v", err)
			return
		}
		if !e.answer(c, r, request, &p) {
			return
		}
	}
}

// answer reports whether the connection may go on.
func (e *loadEndpoint) answer(c net.Conn, r *bufio.Reader, request *http.Request, p *plan) (more bool) {
	rnd := rand.New(rand.NewPCG(p.id, 1))
	if request.Header.Get("Expect") != "" {
		if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return false
		}
	}
	switch {
	case p.trouble == troubleSilence:
		end(c, rnd)
		return false
	case p.trouble == troubleStall:
		_, _ = io.Copy(io.Discard, c)
		return false
	case p.shape == shapeUpgrade:
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX-ID: %d\r\n\r\n", p.id)
		_, _ = io.Copy(c, r)
		return false
	case p.shape != shapeEarly && p.shape != shapeEcho && !e.takes(request, p):
		return false
	}

	if !e.write(c, rnd, request, p) {
		return false
	}
	if p.shape == shapeEarly && !e.takes(request, p) {
		return false
	}
	if p.trouble == troubleLeaves {
		<-time.After(time.Duration(rnd.IntN(3000)) * time.Microsecond)
		return false // a reset would take what the proxy has not read yet
	}
	return p.shape != shapeClose
}

// takes reads the request's body and reports whether all of it came.
func (e *loadEndpoint) takes(request *http.Request, p *plan) bool {
	whole, err := same(request.Body, p.up())
	if err == nil && !whole {
		e.load.fault("the body of request %d is not the one that was sent, and claims to be whole", p.id)
	}
	return whole
}

// write writes the answer and reports whether the connection may go on.
func (e *loadEndpoint) write(c net.Conn, rnd *rand.Rand, request *http.Request, p *plan) bool {
	var b bytes.Buffer
	if p.shape == shapeInterim {
		b.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d Whatever\r\nX-ID: %d\r\n", p.status, p.id)
	framing := p.shape
	switch {
	case p.shape == shapeClose:
		b.WriteString("Connection: close\r\n")
	case p.shape == shapeTrailers:
		b.WriteString("Trailer: X-After\r\nTransfer-Encoding: chunked\r\n")
		framing = shapeChunked
	case p.shape == shapeChunked || p.shape == shapeEcho:
		b.WriteString("Transfer-Encoding: chunked\r\n")
		framing = shapeChunked
	case p.status != http.StatusNoContent:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", p.size)
		framing = shapeLength
	}
	b.WriteString("\r\n")

	out := fragments{c, rnd}
	if p.trouble == troubleHead {
		_, _ = out.Write(b.Bytes()[:b.Len()/2])
		end(c, rnd)
		return false
	}
	if p.shape == shapeNothing {
		_, err := out.Write(b.Bytes())
		return err == nil
	}
	if p.trouble == troubleUnsolicited {
		_, _ = b.ReadFrom(framed(p, framing, rnd))
		b.WriteString("HTTP/1.1 200 OK\r\nX-ID: 0\r\nContent-Length: 4\r\n\r\nevil")
		_, err := c.Write(b.Bytes())
		return err == nil
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return false
	}
	switch p.trouble {
	case troubleBody, troubleStallBody:
		e.writePart(out, framing, request, p)
		if p.trouble == troubleStallBody {
			_, _ = io.Copy(io.Discard, c)
		}
		if framing == shapeClose || p.size == 0 {
			reset(c) // otherwise it would be whole
		} else {
			end(c, rnd)
		}
		return false
	}
	if p.shape == shapeEcho {
		return writeChunks(c, rnd, request.Body, "") == nil
	}
	_, err := io.Copy(out, framed(p, framing, rnd))
	return err == nil
}

// writePart writes what an endpoint writes of a body before it dies.
func (e *loadEndpoint) writePart(out fragments, framing string, request *http.Request, p *plan) {
	switch {
	case p.shape == shapeEcho:
		b := make([]byte, p.send/2)
		n, _ := io.ReadFull(request.Body, b)
		_, _ = fmt.Fprintf(out, "%x\r\n%s", p.send+1, b[:n])
	case framing == shapeChunked:
		all, _ := io.ReadAll(framed(p, framing, out.rand))
		_, _ = out.Write(all[:len(all)-1-out.rand.IntN(len(all)-1)])
	default:
		_, _ = io.CopyN(out, p.down(), int64(p.size/2))
	}
}

// framed returns the answer's body as it is sent.
func framed(p *plan, framing string, rnd *rand.Rand) io.Reader {
	if framing != shapeChunked {
		return p.down()
	}
	trailer := ""
	if p.shape == shapeTrailers {
		trailer = fmt.Sprintf("X-After: %d\r\n", p.id)
	}
	var b bytes.Buffer
	_ = writeChunks(&b, rnd, p.down(), trailer) // into memory
	return &b
}

// end closes a connection, or resets it.
func end(c net.Conn, rnd *rand.Rand) {
	if rnd.IntN(2) == 0 {
		reset(c)
	}
	_ = c.Close()
}

// reset closes a connection so that its peer sees a reset.
func reset(c net.Conn) {
	_ = tcpOf(c).SetLinger(0)
	_ = tcpOf(c).Close()
}

// isEnd reports whether an error is that of a connection which ended, not of what came on it.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || strings.Contains(err.Error(), "tls: ")
}
