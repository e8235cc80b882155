package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Departures tells when clients close their connections, which nobody who does not read notices; net/http does only once a
// request's body was read to its end, and that of a held request is not read at all. One goroutine watches for all, and a
// watch costs two system calls. What a client sends meanwhile, such as its next request, is no departure. The zero value
// is ready, and tells of what it watches while Run runs.
type Departures struct {
	mu      sync.Mutex      // guards the following
	epoll   syscall.RawConn // or nil: Run has not begun
	last    uint64          // ids are never used again: an event may come late
	watched map[uint64]watched
}

// watched is a connection whose client may leave, and what is to be done then.
type watched struct {
	conn *net.TCPConn
	left func()
}

// Run watches until ctx ends, also for what was watched before.
func (d *Departures) Run(ctx context.Context) error {
	epoll, raw, err := openEpoll()
	if err != nil {
		return fmt.Errorf("watch for clients that leave: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = epoll.Close() })
	defer stop()
	d.begin(raw)
	for err == nil {
		err = d.next(raw)
	}
	d.begin(nil)
	_ = epoll.Close()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch for clients that leave: %w", err)
}

// Watch calls left when the client of c is gone. The id, which is not 0, ends that with Forget: when Forget returns, left
// is not called any more. It must not block, nor watch or forget itself.
func (d *Departures) Watch(c *net.TCPConn, left func()) (id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	id = d.last
	if d.watched == nil {
		d.watched = make(map[uint64]watched)
	}
	d.watched[id] = watched{c, left}
	_ = d.addLocked(id, c) // fails where there is nothing to be watched any more: then reading fails, too
	return id
}

// Forget ends a watch.
func (d *Departures) Forget(c *net.TCPConn, id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.watched, id)
	_ = d.ctlLocked(unix.EPOLL_CTL_DEL, c, nil) // fails where c is closed, which took it off the list
}

func (d *Departures) begin(epoll syscall.RawConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoll = epoll
	for id, w := range d.watched {
		_ = d.addLocked(id, w.conn)
	}
}

// next waits for departures and tells of them.
func (d *Departures) next(epoll syscall.RawConn) error {
	var events [128]unix.EpollEvent
	var n int
	var waitErr error
	// The descriptor of an epoll is itself readable when it has events, so that Go's own poller waits for it.
	err := epoll.Read(func(fd uintptr) (done bool) {
		n, waitErr = unix.EpollWait(int(fd), events[:], 0)
		return n != 0
	})
	if errors.Is(waitErr, unix.EINTR) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events[:max(n, 0)] {
		if w, ok := d.watched[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]; ok {
			w.left()
		}
	}
	return errors.Join(err, waitErr)
}

func (d *Departures) addLocked(id uint64, c *net.TCPConn) error {
	return d.ctlLocked(unix.EPOLL_CTL_ADD, c, &unix.EpollEvent{
		Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, // and EPOLLHUP, EPOLLERR, which are always on
		Fd:     int32(uint32(id)), Pad: int32(uint32(id >> 32)),
	})
}

func (d *Departures) ctlLocked(op int, c *net.TCPConn, event *unix.EpollEvent) error {
	if d.epoll == nil {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := d.epoll.Control(func(epfd uintptr) {
		connErr := raw.Control(func(fd uintptr) { err = unix.EpollCtl(int(epfd), op, int(fd), event) })
		err = errors.Join(err, connErr)
	})
	return errors.Join(err, controlErr)
}

// openEpoll returns a new epoll as a file that Go's poller can wait for.
func openEpoll() (*os.File, syscall.RawConn, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, raw, nil
}
