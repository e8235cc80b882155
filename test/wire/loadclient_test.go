package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/dormouse-dev/dormouse/test/engine"
)

// loadClient is one client of the random load. It is used by one goroutine, but for the bodies that it sends.
type loadClient struct {
	load *load
	rand *rand.Rand

	c     net.Conn
	r     *bufio.Reader
	minor int
	keep  bool
	left  atomic.Bool // it has hung up
	// shaken is whether the proxy has answered by itself. net/http may then close the connection without having said so.
	shaken bool
	story  []string // what was asked and answered on the connection
}

// run opens connections, one after the other, until ctx ends.
func (c *loadClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !c.connect() {
			return
		}
		c.minor, c.keep = 1, true
		if c.rand.IntN(6) == 0 {
			c.minor, c.keep = 0, c.rand.IntN(2) == 0
		}
		for range 1 + c.rand.IntN(30) {
			if ctx.Err() != nil || !c.step() {
				break
			}
		}
		end(c.c, c.rand)
	}
}

func (c *loadClient) connect() bool {
	address, secure := c.load.p.addr, c.rand.IntN(6) == 0
	if secure {
		address = c.load.p.tlsAddr
	}
	raw, err := net.Dial("tcp", address)
	if err != nil {
		c.load.fault("connect: %v", err)
		return false
	}
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	if secure {
		raw = tls.Client(raw, &tls.Config{RootCAs: c.load.p.roots, ServerName: "example.com"})
	}
	c.c, c.r = raw, bufio.NewReader(raw)
	c.left.Store(false)
	c.shaken, c.story = false, nil
	return true
}

// step sends some requests and reports whether the connection may go on.
func (c *loadClient) step() bool {
	switch n := c.rand.IntN(40); {
	case n == 0 && c.minor == 1:
		return c.upgrade()
	case n < 8 && c.minor == 1:
		return c.pipeline(2 + c.rand.IntN(4))
	}
	p := newPlan(c.rand, c.load.ids.Add(1), false)
	if c.rand.IntN(10) == 0 { // it leaves, soon or not so soon
		after := time.Duration(c.rand.IntN(pick(c.rand, 100, 1000, 10_000))) * time.Microsecond
		hangUp := c.rand.IntN(3)
		done := make(chan struct{})
		timer := time.AfterFunc(after, func() {
			defer close(done)
			c.hangUp(hangUp)
		})
		defer func() {
			if !timer.Stop() {
				<-done
			}
		}()
	}
	if p.shape == shapeClose && c.minor == 0 {
		p.trouble = troubleNone // an end that comes too early might be the right one
	}
	began := c.load.calm()
	head := p.head(c.minor, c.keep)
	sent := make(chan struct{})
	proceed := make(chan struct{}, 1)
	if p.send < 0 {
		close(sent)
		_, _ = fragments{c.c, c.rand}.Write(head)
	} else {
		rnd := rand.New(rand.NewPCG(p.id, 2))
		go func() {
			defer close(sent)
			c.send(rnd, head, &p, proceed)
		}()
	}
	more, err := c.receive(&p, began, proceed)
	if err != nil {
		_ = tcpOf(c.c).Close() // ends the sending too
	}
	<-sent
	return more && err == nil && !c.left.Load()
}

// send writes a request with a body.
func (c *loadClient) send(rnd *rand.Rand, head []byte, p *plan, proceed <-chan struct{}) {
	out := fragments{c.c, rnd}
	if p.send < 50_000 && !p.expect && (!p.chunked || c.minor == 0) && rnd.IntN(2) == 0 {
		body, _ := io.ReadAll(p.up())
		_, _ = out.Write(append(head, body...))
		return
	}
	if _, err := out.Write(head); err != nil {
		return
	}
	if p.expect && c.minor == 1 {
		<-proceed
	}
	if p.chunked && c.minor == 1 {
		_ = writeChunks(c.c, rnd, p.up(), "")
	} else {
		_, _ = io.Copy(out, p.up())
	}
}

// pipeline sends requests at once, and takes their answers in order.
func (c *loadClient) pipeline(n int) bool {
	plans := make([]plan, n)
	var b bytes.Buffer
	for i := range plans {
		plans[i] = newPlan(c.rand, c.load.ids.Add(1), true)
		p := &plans[i]
		b.Write(p.head(1, true))
		switch {
		case p.send >= 0 && p.chunked:
			_ = writeChunks(&b, c.rand, p.up(), "") // into memory
		default:
			_, _ = b.ReadFrom(p.up())
		}
	}
	began := c.load.calm()
	if _, err := (fragments{c.c, c.rand}).Write(b.Bytes()); err != nil {
		return false
	}
	for i := range plans {
		if more, err := c.receive(&plans[i], began, nil); !more || err != nil {
			return false
		}
	}
	return true
}

// upgrade makes the connection another protocol's, that echoes.
func (c *loadClient) upgrade() bool {
	p := plan{id: c.load.ids.Add(1), method: http.MethodGet, send: -1, status: 101, shape: shapeUpgrade, size: c.rand.IntN(300_000), trouble: troubleNone}
	began := c.load.calm()
	early := 0
	if c.rand.IntN(2) == 0 {
		early = min(p.size, 100)
	}
	body, _ := io.ReadAll(p.down())
	_, _ = c.c.Write(append(p.head(1, true), body[:early]...))
	resp, err := http.ReadResponse(c.r, &http.Request{Method: p.method})
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		c.failed(&p, began, resp, err)
		return false
	}
	defer resp.Body.Close()
	c.identify(&p, resp)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = c.c.Write(body[early:])
	}()
	whole, err := same(io.LimitReader(c.r, int64(p.size)), bytes.NewReader(body))
	if err != nil {
		_ = tcpOf(c.c).Close()
	}
	<-sent
	switch {
	case err == nil && whole:
		c.load.upgraded.Add(1)
	case c.load.disturbed(began):
	default:
		c.load.fault("the upgraded connection %d broke off: %v", p.id, err)
	}
	return false
}

// receive takes the answer and reports whether there may be another one.
func (c *loadClient) receive(p *plan, began int64, proceed chan<- struct{}) (more bool, err error) {
	if proceed != nil {
		defer close(proceed)
	}
	var resp *http.Response
	for {
		resp, err = http.ReadResponse(c.r, &http.Request{Method: p.method})
		if err != nil || resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if c.minor == 0 {
			c.load.fault("an HTTP/1.0 client got %s", resp.Status)
		}
		if resp.StatusCode == http.StatusContinue && proceed != nil {
			select {
			case proceed <- struct{}{}:
			default:
			}
		}
	}
	if err != nil {
		c.failed(p, began, nil, err)
		return false, err
	}
	defer resp.Body.Close()
	c.story = append(c.story, fmt.Sprintf("%v: %s, close %t", *p, resp.Status, resp.Close))
	if resp.Header.Get("X-Id") == "" {
		c.failed(p, began, resp, nil)
		c.shaken = true
		return !resp.Close, nil
	}
	c.identify(p, resp)
	return c.body(p, began, resp)
}

// body compares the answer's body.
func (c *loadClient) body(p *plan, began int64, resp *http.Response) (more bool, err error) {
	want := p.down()
	switch {
	case p.shape == shapeEcho:
		want = p.up()
	case p.shape == shapeNothing || p.method == http.MethodHead:
		want = http.NoBody
	}
	whole, err := same(resp.Body, want)
	switch {
	case err == nil && !whole:
		c.load.fault("the answer to %v claims to be whole, and is not: HTTP/1.%d, %s %v", *p, c.minor, resp.Status, resp.Header)
		return false, errors.New("not whole")
	case err == nil && p.shape == shapeTrailers && resp.TransferEncoding != nil && resp.Trailer.Get("X-After") != strconv.FormatUint(p.id, 10):
		c.load.fault("the trailers of %d are %v", p.id, resp.Trailer)
	case err != nil:
		c.failed(p, began, nil, err)
	default:
		c.load.whole.Add(1)
	}
	return !resp.Close, err
}

// identify compares what says whose answer it is.
func (c *loadClient) identify(p *plan, resp *http.Response) {
	if id := resp.Header.Get("X-Id"); id != strconv.FormatUint(p.id, 10) || resp.StatusCode != p.status {
		c.load.fault("request %v got %s of %s", *p, resp.Status, id)
	}
}

// failed is told of a request that did not come to a whole answer: it got an answer of the proxy's own, or an error.
func (c *loadClient) failed(p *plan, began int64, resp *http.Response, err error) {
	c.load.broken.Add(1)
	what := fmt.Sprint(err)
	if resp != nil {
		body, _ := io.ReadAll(resp.Body)
		what = fmt.Sprintf("%s %v %s", resp.Status, resp.Header, body)
		if resp.StatusCode != http.StatusBadGateway && resp.StatusCode != http.StatusGatewayTimeout {
			c.load.fault("request %v got %s", *p, what)
			return
		}
	} else if !isEnd(err) {
		c.load.fault("the answer to %v is malformed: %v", *p, err)
	}
	if c.shaken && engine.Current() == engine.Stdlib {
		return
	}
	if p.calm() && !c.left.Load() && !c.load.disturbed(began) {
		c.load.fault("nothing was wrong with request %v over HTTP/1.%d of %T, and it got %s after %q", *p, c.minor, c.c, what, c.story)
	}
}

func (c *loadClient) hangUp(how int) {
	c.left.Store(true)
	switch how {
	case 0:
		_ = tcpOf(c.c).CloseWrite()
	case 1:
		_ = tcpOf(c.c).Close()
	default:
		reset(c.c)
	}
}
