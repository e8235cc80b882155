package local

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
)

// control tells the children with the role "obey" what to do.
type control struct {
	t        *testing.T
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex // guards the following
	commands map[string]string
	children map[string]map[*obedient]bool
}

type obedient struct {
	mu    sync.Mutex // guards conn, from a command to its answer
	conn  net.Conn
	lines *bufio.Scanner
}

func newControl(t *testing.T) *control {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &control{t: t, listener: listener, commands: make(map[string]string), children: make(map[string]map[*obedient]bool)}
	c.serving.Go(c.serve)
	t.Cleanup(func() {
		listener.Close()
		c.serving.Wait()
	})
	return c
}

// process is a process that obeys under this name, which begins with the command that was told last.
func (c *control) process(name string, linger bool) Process {
	env := map[string]string{
		"DORMOUSE_TEST_CHILD":   "obey",
		"DORMOUSE_TEST_CONTROL": c.listener.Addr().String(),
		"DORMOUSE_TEST_NAME":    name,
		"GORACE":                "atexit_sleep_ms=0", // The race detector would let every exit take a second.
	}
	if linger {
		env["DORMOUSE_TEST_LINGER"] = "yes"
	}
	return Process{Command: []string{os.Args[0]}, Env: env, StopGrace: patience}
}

// tell makes all children of a name, and those still to come, do something, and returns when they have.
func (c *control) tell(name, command string) {
	c.mu.Lock()
	var children []*obedient
	for child := range c.children[name] {
		children = append(children, child)
	}
	if command != "crash" {
		c.commands[name] = command
	}
	c.mu.Unlock()
	for _, child := range children {
		child.tell(command)
	}
}

func (c *control) serve() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			break
		}
		child := &obedient{conn: conn, lines: bufio.NewScanner(conn)}
		c.serving.Go(func() { c.welcome(child) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, children := range c.children {
		for child := range children {
			child.conn.Close()
		}
	}
}

func (c *control) welcome(child *obedient) {
	if !child.lines.Scan() {
		child.conn.Close()
		return
	}
	name := child.lines.Text()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.children[name] == nil {
		c.children[name] = make(map[*obedient]bool)
	}
	c.children[name][child] = true
	child.tell(c.commands[name])
}

// tell returns when the child has done it, or has ended.
func (o *obedient) tell(command string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintln(o.conn, command)
	o.lines.Scan()
}

// crashOne makes one child of a name crash.
func (c *control) crashOne(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for child := range c.children[name] {
		child.tell("crash")
		return
	}
}
