package httpx

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

// departures tells when clients close their connections. net/http notices that only once a request's body was read to
// its end, and that of a held request is not read at all. One goroutine watches for all; a connection costs two system
// calls, and only while its request is held. What a client sends meanwhile, such as its next request, is no departure.
type departures struct {
	mu      sync.Mutex // guards the following
	epoll   *os.File   // or nil: not running
	control syscall.RawConn
	last    uint64 // ids are never used again: an event may come late
	left    map[uint64]chan<- struct{}
}

// run watches until ctx ends.
func (d *departures) run(ctx context.Context) error {
	epoll, raw, err := openEpoll()
	if err != nil {
		return fmt.Errorf("watch for clients that leave: %w", err)
	}
	d.mu.Lock()
	d.epoll, d.control, d.left = epoll, raw, make(map[uint64]chan<- struct{})
	d.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = epoll.Close() })
	defer stop()

	for {
		var events [128]unix.EpollEvent
		var n int
		var waitErr error
		// The descriptor of an epoll is itself readable when it has events, so that Go's own poller waits for it.
		err := raw.Read(func(fd uintptr) (done bool) {
			n, waitErr = unix.EpollWait(int(fd), events[:], 0)
			return n != 0
		})
		if errors.Is(waitErr, unix.EINTR) {
			continue
		}
		if err = errors.Join(err, waitErr); err != nil {
			break
		}
		d.mu.Lock()
		for _, e := range events[:n] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			if left := d.left[id]; left != nil {
				select {
				case left <- struct{}{}:
				default:
				}
			}
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.epoll, d.control, d.left = nil, nil, nil
	d.mu.Unlock()
	_ = epoll.Close()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch for clients that leave: %w", err)
}

// watch sends to left, without blocking, when the client of c is gone. The id ends that with forget.
func (d *departures) watch(c *net.TCPConn, left chan<- struct{}) (id uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoll == nil {
		return 0
	}
	d.last++
	id = d.last
	event := unix.EpollEvent{
		Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, // and EPOLLHUP, EPOLLERR, which are always on
		Fd:     int32(uint32(id)), Pad: int32(uint32(id >> 32)),
	}
	if d.ctl(raw, unix.EPOLL_CTL_ADD, &event) != nil {
		return 0
	}
	d.left[id] = left
	return id
}

// forget ends a watch. An id of 0 is none.
func (d *departures) forget(c *net.TCPConn, id uint64) {
	if id == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.left, id)
	if raw, err := c.SyscallConn(); err == nil && d.epoll != nil {
		_ = d.ctl(raw, unix.EPOLL_CTL_DEL, nil) // fails where c is closed, which took it off the list
	}
}

func (d *departures) ctl(raw syscall.RawConn, op int, event *unix.EpollEvent) (err error) {
	controlErr := d.control.Control(func(epfd uintptr) {
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
