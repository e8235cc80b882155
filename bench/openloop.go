package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// openLoop sends requests at a constant rate, whether or not earlier ones were answered, on connections that it keeps. A
// request's time counts from when it was due, so that what waits for a connection is not left out. The connection that has
// been idle for longest is taken, as with clients that know nothing of each other.
//
// It is one thread that waits for the next due time or answer, whichever is sooner, to the microsecond: a program that
// sleeps in milliseconds sends in bursts, and those are cheaper to serve than what comes evenly.
type openLoop struct {
	interval time.Duration // between requests
	requests int
	request  []byte

	began     time.Time
	sent      int
	due       []time.Duration // of connections: when the request was due that is under way; negative: idle
	replies   []reply
	polled    []unix.PollFd
	idle      []int // connections, the one that has been idle for longest first
	latencies []time.Duration
}

// paced is what an open loop measured.
type paced struct {
	requests int
	took     time.Duration // from the first due time to the last answer
	p50, p99 time.Duration
}

const paceRole = "pace"

// pace is the role of this program that runs an open loop: against an address, with a method, path, body's size, number of
// connections, rate per second, and for how long first to warm up and then to measure. It prints "begin" when it begins to
// measure, and at the end what it measured, for [readPaced].
func pace(args []string) error {
	if len(args) != 8 {
		return fmt.Errorf("%d arguments", len(args))
	}
	address, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return fmt.Errorf("read the address: %w", err)
	}
	var numbers [3]int // body, connections, rate
	for i := range numbers {
		if numbers[i], err = strconv.Atoi(args[3+i]); err != nil {
			return fmt.Errorf("read a number: %w", err)
		}
	}
	var times [2]time.Duration
	for i := range times {
		if times[i], err = time.ParseDuration(args[6+i]); err != nil {
			return fmt.Errorf("read a duration: %w", err)
		}
	}
	o := &openLoop{interval: time.Second / time.Duration(numbers[2]), request: requestBytes(args[1], args[2], numbers[0])}

	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil { // ns, instead of 50 µs
		return fmt.Errorf("set the timer slack: %w", err)
	}
	if err := o.connect(address, numbers[1]); err != nil {
		return err
	}
	if _, err := o.run(int(times[0] / o.interval)); err != nil {
		return err
	}
	if _, err := fmt.Println("begin"); err != nil {
		return err
	}
	p, err := o.run(int(times[1] / o.interval))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, p.requests, p.took, p.p50, p.p99)
	return err
}

// readPaced reads the line that pace ends with.
func readPaced(line string) (p paced, err error) {
	var durations [3]string
	if _, err := fmt.Sscan(line, &p.requests, &durations[0], &durations[1], &durations[2]); err != nil {
		return p, fmt.Errorf("read %q: %w", line, err)
	}
	for i, to := range []*time.Duration{&p.took, &p.p50, &p.p99} {
		if *to, err = time.ParseDuration(durations[i]); err != nil {
			return p, fmt.Errorf("read %q: %w", line, err)
		}
	}
	return p, nil
}

func requestBytes(method, path string, body int) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: bench\r\n", method, path)
	if body > 0 {
		head += fmt.Sprintf("Content-Length: %d\r\n", body)
	}
	return append([]byte(head+"\r\n"), bytes.Repeat([]byte{'x'}, body)...)
}

func (o *openLoop) connect(to netip.AddrPort, connections int) error {
	for i := range connections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make a socket: %w", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			return fmt.Errorf("connect to %v: %w", to, err)
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("make a connection non-blocking: %w", err)
		}
		o.polled = append(o.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		o.idle = append(o.idle, i)
	}
	o.due, o.replies = make([]time.Duration, connections), make([]reply, connections)
	for i := range o.due {
		o.due[i] = -1
	}
	return nil
}

// run sends a number of requests, and returns when all were answered.
func (o *openLoop) run(requests int) (paced, error) {
	o.began, o.requests, o.sent, o.latencies = time.Now(), requests, 0, slices.Grow(o.latencies[:0], requests)
	buffer := make([]byte, 64<<10)
	for len(o.latencies) < o.requests {
		if err := o.send(); err != nil {
			return paced{}, err
		}
		n, err := o.wait()
		if err != nil {
			return paced{}, err
		}
		for i := 0; i < len(o.polled) && n > 0; i++ {
			if o.polled[i].Revents == 0 {
				continue
			}
			n--
			if err := o.receive(i, buffer); err != nil {
				return paced{}, err
			}
		}
	}
	p := paced{requests: requests, took: time.Since(o.began)}
	if requests > 0 {
		slices.Sort(o.latencies)
		p.p50, p.p99 = o.latencies[requests/2], o.latencies[requests*99/100]
	}
	return p, nil
}

// send sends the requests that are due, as far as connections are idle.
func (o *openLoop) send() error {
	for now := time.Since(o.began); o.sent < o.requests && len(o.idle) > 0; o.sent++ {
		due := time.Duration(o.sent) * o.interval
		if due > now {
			return nil
		}
		i := o.idle[0]
		o.idle = append(o.idle[:0], o.idle[1:]...)
		o.due[i] = due
		if n, err := unix.Write(int(o.polled[i].Fd), o.request); n != len(o.request) {
			return fmt.Errorf("send %d bytes: %d, %w", len(o.request), n, err)
		}
	}
	return nil
}

var errSilent = errors.New("nothing was answered for five seconds")

// wait waits until a connection has something to read, or a request is due that an idle connection can take.
func (o *openLoop) wait() (ready int, err error) {
	timeout := 5 * time.Second
	pacing := o.sent < o.requests && len(o.idle) > 0
	if pacing {
		timeout = max(0, time.Duration(o.sent)*o.interval-time.Since(o.began))
	}
	t := unix.NsecToTimespec(int64(timeout))
	n, err := unix.Ppoll(o.polled, &t, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("wait for answers: %w", err)
	case n == 0 && !pacing:
		return 0, errSilent
	}
	return n, nil
}

func (o *openLoop) receive(i int, buffer []byte) error {
	n, err := unix.Read(int(o.polled[i].Fd), buffer)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("receive: %w", err)
	case n == 0 || o.due[i] < 0:
		return fmt.Errorf("%w: %d bytes on a connection, with a request under way: %v", errReply, n, o.due[i] >= 0)
	}
	done, err := o.replies[i].feed(buffer[:n])
	if err != nil {
		return err
	}
	if done {
		o.latencies = append(o.latencies, time.Since(o.began)-o.due[i])
		o.due[i] = -1
		o.idle = append(o.idle, i)
	}
	return nil
}

var errReply = errors.New("not an answer that was asked for")

// reply follows the answers on a connection, one after the other. Each must be a 200 with Content-Length.
type reply struct {
	head []byte // what has come of it
	left int    // bytes of the body that have not come, once the head has
	body bool
}

// feed takes what was read, and says whether it was the end of an answer. More than that is an error: nothing more was asked for.
func (r *reply) feed(p []byte) (done bool, err error) {
	if !r.body {
		r.head = append(r.head, p...)
		end := bytes.Index(r.head, []byte("\r\n\r\n"))
		if end < 0 {
			return false, nil
		}
		head := bytes.ToLower(r.head[:end+2])
		_, length, found := bytes.Cut(head, []byte("\r\ncontent-length:"))
		length, _, _ = bytes.Cut(length, []byte("\r\n"))
		if r.left, err = strconv.Atoi(string(bytes.TrimSpace(length))); err != nil || !found || !bytes.HasPrefix(head, []byte("http/1.1 200 ")) {
			return false, fmt.Errorf("%w: %q", errReply, r.head)
		}
		r.body, p = true, r.head[end+4:]
	}
	if len(p) > r.left {
		return false, fmt.Errorf("%w: %d bytes behind it", errReply, len(p)-r.left)
	}
	r.left -= len(p)
	if r.left > 0 {
		return false, nil
	}
	r.body, r.head = false, r.head[:0]
	return true, nil
}
