package sock

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// canSplice: the kernel moves bytes from one connection to another.
const canSplice = true

// pipeSize is how many bytes a pipe is asked to hold. The kernel gives less to users who have many.
const pipeSize = 1 << 20

// errNoSplice says that nothing was read and splicing cannot be had, such as when there are no descriptors for a pipe.
var errNoSplice = errors.New("splice is not possible")

// pipe is what bytes are moved through. Unlike net's, it is taken for as long as bytes are in it.
type pipe struct {
	r, w    int
	cleanup runtime.Cleanup
}

// drain moves bytes from a connection into a pipe.
type drain struct {
	most   int   // bytes
	pipe   *pipe // or nil: nothing was there
	moved  int
	err    error
	onRead func(fd uintptr) bool
}

// pump moves the bytes of a pipe to a connection.
type pump struct {
	pipe    *pipe
	left    int // bytes in the pipe
	err     error
	onWrite func(fd uintptr) bool
}

// splice waits for bytes and moves what is there to dst, n at most.
func (s *Socket) splice(dst *Socket, n int64) (int64, error) {
	if s.drain == nil {
		s.drain = newDrain(s.pool)
	}
	if dst.pump == nil {
		dst.pump = newPump(dst)
	}
	d, p := s.drain, dst.pump
	d.most, d.moved, d.err = int(min(n, pipeSize)), 0, nil
	if err := s.raw.Read(d.onRead); err != nil {
		return 0, err
	}
	if d.err != nil {
		return 0, d.err
	}
	p.pipe, p.left, p.err = d.pipe, d.moved, nil
	d.pipe = nil
	err := errors.Join(dst.raw.Write(p.onWrite), p.err)
	if p.left > 0 {
		p.pipe.close()
	} else {
		s.pool.pipes.Put(p.pipe)
	}
	p.pipe = nil
	if err != nil {
		return int64(d.moved - p.left), &WriteError{err}
	}
	return int64(d.moved), nil
}

func newDrain(pool *Pool) *drain {
	d := &drain{}
	d.onRead = func(fd uintptr) (done bool) {
		p, err := takePipe(pool)
		if err != nil {
			d.err = errNoSplice
			return true
		}
		n, err := move(int(fd), p.w, d.most)
		if n > 0 {
			d.pipe, d.moved = p, n
			return true
		}
		pool.pipes.Put(p)
		switch {
		case err == nil:
			d.err = io.EOF
		case errors.Is(err, unix.EAGAIN):
			return false
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			d.err = errNoSplice
		default:
			d.err = os.NewSyscallError("splice", err)
		}
		return true
	}
	return d
}

func newPump(dst *Socket) *pump {
	p := &pump{}
	p.onWrite = func(fd uintptr) (done bool) {
		for p.left > 0 {
			n, err := move(p.pipe.r, int(fd), p.left)
			switch {
			case err == nil && n == 0:
				p.err = io.ErrUnexpectedEOF // a pipe that has lost bytes
				return true
			case err == nil:
				if p.left -= n; p.left > 0 && dst.Progress != nil {
					dst.Progress()
				}
			case errors.Is(err, unix.EAGAIN):
				return false
			default:
				p.err = os.NewSyscallError("splice", err)
				return true
			}
		}
		return true
	}
	return p
}

// move moves most bytes at the most from one descriptor to another; never both are sockets.
func move(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}

// takePipe returns an empty pipe. One that is forgotten in the pool is closed when it is collected.
func takePipe(pool *Pool) (*pipe, error) {
	if p, ok := pool.pipes.Get().(*pipe); ok {
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one does, too
	p := &pipe{r: fds[0], w: fds[1]}
	p.cleanup = runtime.AddCleanup(p, closeBoth, fds)
	return p, nil
}

func (p *pipe) close() {
	p.cleanup.Stop()
	closeBoth([2]int{p.r, p.w})
	runtime.KeepAlive(p) // else Stop might come too late
}

func closeBoth(fds [2]int) {
	_ = syscall.Close(fds[0])
	_ = syscall.Close(fds[1])
}

// queued returns how many bytes can be read from a socket.
func queued(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
