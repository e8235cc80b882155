package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clients is a process of many clients that stay connected. It goes on by one step each time that a line is written to
// it, and says a line when that is done: one client, all clients, and how many are still connected.
type clients struct {
	*process
	in   io.WriteCloser
	out  *os.File
	said *bufio.Reader // of out
}

const clientsRole = "clients"

// startClients starts n clients of a kind in a process of their own, which has descriptors of its own.
func startClients(kind, address string, n int, c *certificate) (*clients, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p := &process{name: clientsRole, log: new(bytes.Buffer), done: make(chan struct{})}
	p.cmd = exec.Command(self, kind, address, strconv.Itoa(n), c.file)
	p.cmd.Env = append(os.Environ(), "DORMOUSE_BENCH_ROLE="+clientsRole)
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the clients: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe from the clients: %w", err)
	}
	p.cmd.Stdout = writer
	err = p.cmd.Start()
	_ = writer.Close() // the clients have their own
	if err != nil {
		_ = reader.Close()
		return nil, fmt.Errorf("start the clients: %w", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return &clients{process: p, in: in, out: reader, said: bufio.NewReader(reader)}, nil
}

// step lets the clients take their next step, and returns what they say about it.
func (c *clients) step() (string, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return "", fmt.Errorf("tell the clients: %w\n%s", err, c.log)
	}
	line, err := c.said.ReadString('\n')
	if err != nil {
		<-c.done
		return "", fmt.Errorf("listen to the clients: %w\n%s", err, c.log)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

func (c *clients) stop() {
	c.process.stop()
	_ = c.in.Close()
	_ = c.out.Close()
}

var errClosed = errors.New("some connections were closed")

// runClients is the role clients.
func runClients(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("read the number of clients: %w", err)
	}
	load, err := newClientLoad(args[0], args[1], args[3])
	if err != nil {
		return err
	}
	steps := bufio.NewScanner(os.Stdin)
	conns := make([]net.Conn, n)
	for _, some := range [][]net.Conn{conns[:1], conns[1:]} {
		if !steps.Scan() {
			return nil
		}
		for _, do := range load.passes {
			if err := each(some, do); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	if !steps.Scan() {
		return nil
	}
	open := 0
	for _, c := range conns {
		if silent(c) {
			open++
		}
	}
	fmt.Println(open)
	steps.Scan()
	return nil
}

// each calls do for every connection, 64 at a time.
func each(conns []net.Conn, do func(c *net.Conn, in *bufio.Reader) error) error {
	next := make(chan *net.Conn)
	errs := make([]error, 64)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			in := bufio.NewReader(nil)
			for c := range next {
				if errs[i] == nil {
					errs[i] = do(c, in)
				}
			}
		})
	}
	for i := range conns {
		next <- &conns[i]
	}
	close(next)
	all.Wait()
	return errors.Join(errs...)
}

// clientLoad is what each client does, one after the other: in passes over all of them, so that those who have been served once are
// idle while others are.
type clientLoad struct {
	address string
	config  *tls.Config
	passes  []func(c *net.Conn, in *bufio.Reader) error
}

const (
	heldKind      = "held"
	idleKind      = "idle"
	tlsKind       = "tls"
	webSocketKind = "websocket"
)

var errKind = errors.New("there is no such kind of client")

func newClientLoad(kind, address, certificateFile string) (*clientLoad, error) {
	pem, err := os.ReadFile(certificateFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	load := &clientLoad{address: address, config: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}}
	load.config.RootCAs.AppendCertsFromPEM(pem)
	pass := func(all ...func(net.Conn, *bufio.Reader) error) {
		for _, do := range all {
			load.passes = append(load.passes, func(c *net.Conn, in *bufio.Reader) error { return do(*c, in) })
		}
	}
	switch kind {
	case heldKind:
		load.passes = append(load.passes, load.connect)
		pass(request)
	case idleKind:
		load.passes = append(load.passes, load.connect)
		pass(get, get, get)
	case tlsKind:
		load.passes = append(load.passes, load.connectTLS)
		pass(get, get, get)
	case webSocketKind:
		load.passes = append(load.passes, load.connect)
		pass(upgrade, echo)
	default:
		return nil, fmt.Errorf("%s: %w", kind, errKind)
	}
	return load, nil
}

func (l *clientLoad) connect(c *net.Conn, _ *bufio.Reader) (err error) {
	if *c, err = new(net.Dialer).DialContext(context.Background(), "tcp", l.address); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (l *clientLoad) connectTLS(c *net.Conn, _ *bufio.Reader) (err error) {
	if *c, err = (&tls.Dialer{Config: l.config}).DialContext(context.Background(), "tcp", l.address); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// request sends a GET as small as curl's.
func request(c net.Conn, _ *bufio.Reader) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	return nil
}

// get sends a request and receives the answer.
func get(c net.Conn, in *bufio.Reader) error {
	if err := request(c, in); err != nil {
		return err
	}
	in.Reset(c)
	return answered(in, http.StatusOK)
}

// upgrade makes a connection a WebSocket (RFC 6455 section 4.1).
func upgrade(c net.Conn, in *bufio.Reader) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	in.Reset(c)
	return answered(in, http.StatusSwitchingProtocols)
}

// echo sends a message on a WebSocket, masked with zeros, and receives it back.
func echo(c net.Conn, _ *bufio.Reader) error {
	const text = "hello"
	if _, err := io.WriteString(c, "\x81\x85\x00\x00\x00\x00"+text); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	// It may come in fragments, and an empty one may be the last; none of them is masked.
	var got []byte
	for last := false; !last; {
		var head [2]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return fmt.Errorf("receive a message: %w", err)
		}
		last = head[0]&0x80 != 0
		fragment := make([]byte, head[1])
		if _, err := io.ReadFull(c, fragment); err != nil {
			return fmt.Errorf("receive a message: %w", err)
		}
		got = append(got, fragment...)
	}
	if string(got) != text {
		return fmt.Errorf("the message came back as %q", got)
	}
	return nil
}

// answered reads an answer with a status.
func answered(in *bufio.Reader, status int) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return fmt.Errorf("receive an answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		return fmt.Errorf("the status is %s, not %d", resp.Status, status)
	}
	if status == http.StatusSwitchingProtocols {
		return nil
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("receive an answer: %w", err)
	}
	return nil
}

// silent reports whether a connection is open, and nothing has come that was not read.
func silent(c net.Conn) bool {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	var b [1]byte
	peekErr := errClosed
	err = raw.Control(func(fd uintptr) {
		_, _, peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(peekErr, syscall.EAGAIN)
}
