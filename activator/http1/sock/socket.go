package sock

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// ErrFull is returned by Fill when the buffer has no room: the caller grows it, or gives up.
var ErrFull = errors.New("buffer is full")

// Socket is a connection, read through a buffer that it takes from a pool when bytes have come and gives back when it waits
// with none left.
//
// One goroutine at a time may read (In, Fill, Await, Readable, Available, Release, Drop, and CopyTo from it) while another
// writes (Write, WriteTwo, and CopyTo to it). Anybody may set deadlines, Interrupt, Abort and Close at any time; the first
// two wake who waits. A Read deadline that has passed ends Fill, Await and CopyTo with an error that is
// [os.ErrDeadlineExceeded], and they work again once it is moved.
type Socket struct {
	In *Buffer // what was read and not used; nil: nothing. It belongs to who reads.

	// Progress, or nil, is called when the peer has taken a part of what is being spliced to it: a pipe holds so much that a
	// slow peer may need longer for it than it may be idle. It belongs to who writes, and must neither block nor write.
	Progress func()

	conn net.Conn
	tcp  *net.TCPConn    // that is conn or lies beneath it, or nil
	raw  syscall.RawConn // of tcp, or nil
	pool *Pool

	plain  bool // conn is tcp
	direct bool // it is read and written by system calls of our own

	// Of who reads.
	stashed  uint8
	flowing  bool     // much has come, and probably more is to come: a buffer waits for it
	stash    [16]byte // what a connection was read into that cannot be asked whether something is there
	readErr  syscall.Errno
	received int
	onRead   func(fd uintptr) bool // made once: a closure at every call would be an allocation
	asking   asking
	onAsk    func(fd uintptr) bool // or nil: not used yet
	peeker   *peeker               // or nil: not used yet
	drain    *drain                // or nil: not used yet

	// Of who writes.
	writeErr syscall.Errno
	wrote    int
	out      [2][]byte // what is still to be written
	onWrite  func(fd uintptr) bool
	pump     *pump // or nil: not used yet
}

// asking is how far an Ask has come.
type asking uint8

const (
	askingNothing asking = iota // it has not begun
	askingAnswer                // p is written
	askingMore                  // p is written in part, or not at all
	askingStale                 // there was something to be read before
)

// WriteError is a failure of the side that was copied to.
type WriteError struct{ Err error }

// New returns a Socket that reads and writes conn. The connection of TCP that conn is, or that lies beneath it, is tcp, or
// nil if there is none or it is not known. Where conn is tcp itself, on Linux and without the race detector (which cannot
// see what the kernel writes), and not portable, the Socket makes the system calls itself.
func New(conn net.Conn, tcp *net.TCPConn, pool *Pool, portable bool) *Socket {
	s := &Socket{conn: conn, tcp: tcp, pool: pool}
	if tcp == nil {
		return s
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return s // reading it will say why
	}
	s.raw = raw
	if c, ok := conn.(*net.TCPConn); ok && c == tcp {
		s.plain = true
		if canDirect && !portable {
			s.direct = true
			s.onRead, s.onWrite = s.receive, s.send
		}
	}
	return s
}

// Conn returns the connection that is read and written.
func (s *Socket) Conn() net.Conn { return s.conn }

// TCP returns the connection of TCP that Conn is or that lies beneath it, or nil.
func (s *Socket) TCP() *net.TCPConn { return s.tcp }

// Plain reports whether Conn is a connection of TCP itself, so that bytes can be spliced from and to it.
func (s *Socket) Plain() bool { return s.plain }

// Fill waits for bytes and appends at least one to In, which it takes from the pool once they have come, and compacts. It
// returns [ErrFull] where In has no room, io.EOF at the end, and leaves In nil when it waited with nothing in it.
//
// Where conn is not plain TCP, the first Fill may bring only a few bytes of many that are there: what they say decides
// whether there is another Fill, which could block. That one waits with a buffer, as do those behind it for as long as much
// comes, until Release.
func (s *Socket) Fill() error {
	if s.In != nil {
		if s.In.Compact(); s.In.Room() == 0 {
			return ErrFull
		}
	}
	if s.direct {
		return s.fillDirect()
	}
	return s.fillPortable()
}

// Ask writes p, of which the connection's peer knows nothing yet, and waits for bytes as Fill does: what Readable, Write and
// Fill do one after the other, with two system calls less. Where something is there to be read before it has written, be it
// an end, it does nothing and reports false.
func (s *Socket) Ask(p []byte) (silent bool, err error) {
	if s.direct {
		return s.askDirect(p)
	}
	if s.Readable() {
		return false, nil
	}
	if _, err := s.Write(p); err != nil {
		return true, err
	}
	return true, s.Fill()
}

// Await waits until there is something to be read: bytes (also in In), the end, or an error, which it may return or leave to
// the next Fill. It holds no buffer.
func (s *Socket) Await() error {
	s.release()
	switch {
	case s.In != nil || s.stashed > 0:
		return nil
	case s.peeks():
		return s.peek().await(s.raw)
	}
	for {
		n, err := s.conn.Read(s.stash[:])
		if s.stashed = uint8(n); n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Readable reports whether there is something to be read without waiting: bytes, the end, or an error, which is lost by
// asking. An idle upstream connection that is readable is of no use any more. Where conn is TLS, this asks the connection
// beneath; where none is known, or the system cannot be asked, it reports false. Deadlines play no part.
func (s *Socket) Readable() bool {
	if s.stashed > 0 || s.In != nil && s.In.Len() > 0 {
		return true
	}
	return s.raw != nil && canPeek && s.peek().readable(s.raw)
}

// Available returns how many bytes can be read without waiting, those in In included; fewer than there are where conn is not
// plain TCP. It is 0 at the end.
func (s *Socket) Available() int {
	n := int(s.stashed)
	if s.In != nil {
		n += s.In.Len()
	}
	if s.plain && canPeek {
		n += s.peek().available(s.raw)
	}
	return n
}

// Release gives In back to the pool if there is nothing in it.
func (s *Socket) Release() {
	s.flowing = false
	s.release()
}

// Drop gives In back to the pool, whatever is in it.
func (s *Socket) Drop() {
	if s.In != nil {
		s.pool.Put(s.In)
		s.In = nil
	}
}

// Write writes all of p, or returns how many bytes of it were written and why not more.
func (s *Socket) Write(p []byte) (n int, err error) {
	if s.direct {
		return s.writeDirect(p, nil)
	}
	return s.conn.Write(p)
}

// WriteTwo writes all of a and then all of b, in one system call (and one TLS record) where it can be.
func (s *Socket) WriteTwo(a, b []byte) error {
	if s.direct {
		_, err := s.writeDirect(a, b)
		return err
	}
	if len(a) > 0 && len(b) > 0 && len(a)+len(b) <= s.pool.size {
		whole := s.pool.Get()
		defer s.pool.Put(whole)
		n := copy(whole.B, a)
		n += copy(whole.B[n:], b)
		_, err := s.conn.Write(whole.B[:n])
		return err
	}
	for _, p := range [...][]byte{a, b} {
		if len(p) > 0 {
			if _, err := s.conn.Write(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// CopyTo waits until there is something to be read, and writes what is there to dst: n bytes at most, n being at least 1. A
// caller that wants them all calls it again, and may move deadlines in between: those of reading count here, those of writing
// in dst. Bytes of In go first; then, where both are plain TCP, the kernel moves them (splice) without showing them to us. No
// buffer and no pipe is held while it waits for bytes, only while dst does not take them.
//
// It returns how many bytes dst has taken, io.EOF at the end, and a [*WriteError] if it was dst that failed: bytes may be lost
// then that it had not taken. Without an error it has copied at least one.
func (s *Socket) CopyTo(dst *Socket, n int64) (int64, error) {
	s.release()
	if s.In == nil && s.stashed == 0 {
		if s.plain && dst.plain && canSplice {
			if moved, err := s.splice(dst, n); !errors.Is(err, errNoSplice) {
				return moved, err
			}
		}
		if err := s.Fill(); err != nil {
			return 0, err
		}
	} else if s.In == nil {
		s.unstash()
	}
	b := s.In.Bytes()
	w, err := dst.Write(b[:min(int64(len(b)), n)])
	s.In.Skip(w)
	s.release()
	if err != nil {
		return int64(w), &WriteError{err}
	}
	return int64(w), nil
}

// SetDeadline is as in [net.Conn].
func (s *Socket) SetDeadline(t time.Time) error { return s.conn.SetDeadline(t) }

// SetReadDeadline is as in [net.Conn].
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline is as in [net.Conn].
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

// Interrupt ends what is being read and written, and what will be, until the deadlines are set again.
func (s *Socket) Interrupt() { _ = s.conn.SetDeadline(time.Unix(1, 0)) }

// CloseWrite tells the peer that nothing more comes, and leaves the other direction open.
func (s *Socket) CloseWrite() error {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Abort closes so that the peer sees a reset, and TLS says no goodbye: what it was sent so far must not look complete.
func (s *Socket) Abort() {
	if s.tcp != nil {
		_ = s.tcp.SetLinger(0)
		_ = s.tcp.Close()
	} else if c, ok := s.conn.(interface{ NetConn() net.Conn }); ok {
		_ = c.NetConn().Close()
	} else {
		_ = s.conn.Close()
	}
}

// Close closes Conn. In stays with who reads.
func (s *Socket) Close() error { return s.conn.Close() }

// Error returns what the destination said.
func (e *WriteError) Error() string { return "write: " + e.Err.Error() }

// Unwrap returns the destination's error.
func (e *WriteError) Unwrap() error { return e.Err }

// fillPortable is Fill by conn's own Read.
func (s *Socket) fillPortable() error {
	if (s.In == nil || s.In.Len() == 0) && !s.flowing {
		if err := s.Await(); err != nil {
			return err
		}
	}
	if s.stashed > 0 {
		s.flowing = int(s.stashed) == len(s.stash)
		s.unstash()
		return nil
	}
	in := s.take()
	defer s.release()
	for {
		n, err := s.conn.Read(in.B[in.W:])
		if in.W += n; n > 0 {
			s.flowing = n >= s.pool.size/2 && !s.peeks()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// peeks reports whether it can be waited for bytes without reading any.
func (s *Socket) peeks() bool { return s.plain && canPeek }

func (s *Socket) release() {
	if s.In != nil && s.In.Len() == 0 {
		s.Drop()
	}
}

// unstash moves to In what Await has read.
func (s *Socket) unstash() {
	in := s.take()
	n := copy(in.B[in.W:], s.stash[:s.stashed])
	in.W += n
	s.stashed = uint8(copy(s.stash[:], s.stash[n:s.stashed]))
}

// take returns In, and takes it from the pool first if there is none.
func (s *Socket) take() *Buffer {
	if s.In == nil {
		s.In = s.pool.Get()
	}
	return s.In
}
