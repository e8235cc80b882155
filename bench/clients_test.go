package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connected returns both ends of a TCP connection.
func connected(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// sayAll shuts the write side, too.
func sayAll(t *testing.T, c net.Conn, text string) {
	t.Helper()
	say(t, c, text)
	if half, ok := c.(*net.TCPConn); !ok || half.CloseWrite() != nil {
		t.Fatal("the write side cannot be shut")
	}
}

func TestAClientIsSilentWhileItIsConnectedAndHasReadAll(t *testing.T) {
	t.Parallel()
	awaitNoise := func(c net.Conn) bool { // what the peer did may take its time
		for range 1000 {
			if !silent(c) {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	client, server := connected(t)
	if !silent(client) {
		t.Error("not silent at first")
	}
	say(t, server, "x")
	if !awaitNoise(client) {
		t.Error("silent with a byte to read")
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !silent(client) {
		t.Error("not silent with nothing left to read")
	}
	server.Close()
	if !awaitNoise(client) {
		t.Error("silent although the peer has left")
	}
	client.Close()
	if silent(client) {
		t.Error("silent although it is closed")
	}
}

func TestAMessageComesBackInAnyFragments(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{
		"\x81\x05hello":             true,
		"\x01\x05hello\x80\x00":     true,
		"\x01\x02he\x80\x03llo":     true,
		"\x81\x04hell":              false,
		"\x01\x05hello\x80\x01o":    false,
		"\x81\x05hullo":             false,
		"\x01\x05hello (and no end": false,
	} {
		client, server := connected(t)
		client.SetDeadline(time.Now().Add(10 * time.Second))
		sayAll(t, server, answer)
		if err := echo(client, nil); (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestAnAnswerWithAnotherStatusIsAnError(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":                true,
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok":                false,
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n": false,
	} {
		client, server := connected(t)
		sayAll(t, server, answer)
		if err := get(client, bufio.NewReader(nil)); (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestResidentMemoryIsAProcesses(t *testing.T) {
	t.Parallel()
	mine := vmRSS(os.Getpid())
	if mine < 1<<20 || mine > 1<<40 {
		t.Errorf("this process has %d bytes", mine)
	}
	if got := residentMemory([]int{os.Getpid(), os.Getpid(), 1 << 30}); got < mine {
		t.Errorf("twice that and nothing is %d bytes", got)
	}
}
