package stream

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	heartbeat = time.Second     // something is sent at least as often
	patience  = 3 * time.Second // for something to come, and for something to be taken
	linger    = time.Second     // for the other end to end a stream that we have ended
	maxQueue  = 4 << 20         // bytes that wait to be sent
	maxWrite  = 64 << 10        // bytes that have to be taken within patience
)

var (
	errClosed   = errors.New("the stream was ended")
	errReplaced = errors.New("the peer has opened another stream")
	errSlow     = errors.New("the peer does not read as fast as it is written to")
	errLine     = errors.New("a line to be sent is empty, too long, or more than one")
)

// link is an open stream. Two goroutines work on it, one in read and one in write; others send.
type link struct {
	conn  *connection
	stir  chan struct{} // holds an element if write may have something to do
	over  chan struct{} // closed with err being set
	done  chan struct{} // closed when nothing more is told of this link
	spare []byte        // write's own: a buffer to exchange for the queue

	mu      sync.Mutex // guards the following
	queue   []byte     // lines with their ends that write has not taken
	writing int        // bytes that write has taken, and that are not written
	closing bool       // nothing more is queued; the stream ends when the queue is empty
	err     error      // why it is over; nil: it is not
}

var _ Link = (*link)(nil)

func newLink(c *connection) *link {
	c.open()
	return &link{conn: c, stir: make(chan struct{}, 1), over: make(chan struct{}), done: make(chan struct{})}
}

// Send implements [Link].
func (l *link) Send(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return l.err
	case l.closing:
		return errClosed
	case len(line) == 0 || len(line) > maxLine || bytes.IndexByte(line, '\n') >= 0:
		l.end(errLine)
	case len(l.queue)+l.writing+len(line) >= maxQueue:
		l.end(errSlow)
	default:
		l.queue = append(append(l.queue, line...), '\n')
		l.poke()
	}
	return l.err
}

// Close implements [Link].
func (l *link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.poke()
}

// cut ends the stream at once, for a reason, unless it is over already.
func (l *link) cut(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(reason)
}

// ended returns why the stream is over, or nil.
func (l *link) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// read gives out what comes, heartbeats excepted, until there is an error, and returns it.
func (l *link) read(receive func(line []byte) error) error {
	for {
		line, err := l.conn.next(maxLine)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if len(line) == 0 {
			continue
		}
		if err := receive(line); err != nil {
			return fmt.Errorf("take a line: %w", err)
		}
	}
}

// write sends what is queued, and heartbeats, until the stream is over.
func (l *link) write() {
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		silent := false
		select {
		case <-l.stir:
		case <-beat.C:
			silent = true
		case <-l.over:
			return
		}
		lines, last := l.take()
		if silent && len(lines) == 0 {
			lines = append(lines, '\n')
		}
		if len(lines) > 0 {
			if err := l.send(lines); err != nil {
				l.cut(fmt.Errorf("write: %w", err))
				return
			}
			beat.Reset(heartbeat)
		}
		if last {
			l.finish()
			return
		}
	}
}

// take returns all that is queued, and whether that is the last.
func (l *link) take() (lines []byte, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, l.queue = l.queue, l.spare[:0]
	l.spare = nil
	if cap(lines) <= keepBuffer {
		l.spare = lines
	}
	l.writing = len(lines)
	return lines, l.closing
}

// send writes lines in parts, each of which has to be taken in time: what a slow network needs for all of them is no
// reason to end the stream.
func (l *link) send(lines []byte) error {
	for len(lines) > 0 {
		part := lines[:min(len(lines), maxWrite)]
		l.conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := l.conn.Write(part); err != nil {
			return err
		}
		lines = lines[len(part):]
		l.mu.Lock()
		l.writing = len(lines)
		l.mu.Unlock()
	}
	return nil
}

// finish says that nothing more comes, and gives the other end time to do the same: a connection that is closed while
// something comes from there may take back what it has sent.
func (l *link) finish() {
	if half, ok := l.conn.Conn.(interface{ CloseWrite() error }); ok {
		l.conn.SetWriteDeadline(time.Now().Add(linger))
		if half.CloseWrite() == nil {
			timer := time.NewTimer(linger)
			defer timer.Stop()
			select {
			case <-l.over:
			case <-timer.C:
			}
		}
	}
	l.cut(errClosed)
}

// end ends the stream. The caller holds l.mu.
func (l *link) end(reason error) {
	if l.err != nil {
		return
	}
	l.err, l.queue = reason, nil
	close(l.over)
	l.conn.cutOff()
}

// poke has write look at what there is to do. The caller holds l.mu.
func (l *link) poke() {
	select {
	case l.stir <- struct{}{}:
	default:
	}
}
