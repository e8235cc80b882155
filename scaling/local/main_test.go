package local

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes the test binary its own child processes, too.
func TestMain(m *testing.M) {
	if role := os.Getenv("DORMOUSE_TEST_CHILD"); role != "" {
		if err := child(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(role string) error {
	switch role {
	case "crash":
		return fmt.Errorf("cannot open the shop: no goods")
	case "obey":
		return obey(os.Getenv("DORMOUSE_TEST_CONTROL"), os.Getenv("DORMOUSE_TEST_NAME"))
	case "http":
		return serveHTTP()
	case "grpc":
		return serveGRPC()
	case "activator":
		return activate()
	}
	return fmt.Errorf("unknown role %s", role)
}

// obey is a server that does what the test at the other end of the control connection says, and ends with it.
func obey(control, name string) error {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		<-terminate
		if farewell := os.Getenv("DORMOUSE_TEST_FAREWELL"); farewell != "" {
			fmt.Fprintln(os.Stdout, farewell)
		}
		if os.Getenv("DORMOUSE_TEST_LINGER") != "" {
			<-time.After(100 * time.Millisecond)
		}
		os.Exit(0)
	}()
	conn, err := net.Dial("tcp", control)
	if err != nil {
		return err
	}
	fmt.Fprintln(conn, name)
	var listener net.Listener
	for commands := bufio.NewScanner(conn); commands.Scan(); fmt.Fprintln(conn, "done") {
		switch command := commands.Text(); command {
		case "answer":
			if listener != nil {
				continue
			}
			if listener, err = net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT")); err != nil {
				return err
			}
			go accept(listener)
		case "refuse":
			if listener != nil {
				listener.Close()
				listener = nil
			}
		case "crash":
			return fmt.Errorf("told to crash")
		default:
			return fmt.Errorf("unknown command %s", command)
		}
	}
	return nil
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}
