package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// A proxy that cuts a body off must not be the cheapest.
func TestABodyThatBreaksOffIsNotATransfer(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	whole := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	go func() { _ = serveBulk([]string{whole}) }() // until the test's process ends
	if err := awaitListening(whole, nil); err != nil {
		t.Fatal(err)
	}
	for name, carry := range map[string]func(string) error{
		"down": func(to string) error { return download(t.Context(), to, 5<<20+1) },
		"up":   func(to string) error { return upload(t.Context(), to, 5<<20+1) },
	} {
		if err := carry(whole); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for _, answer := range []string{
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + strings.Repeat("x", 1000),
			"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1000",
		} {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
			}
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}
	}()
	if err := download(t.Context(), l.Addr().String(), 1001); !errors.Is(err, errBulk) {
		t.Errorf("a part of a body, down: %v", err)
	}
	if err := upload(t.Context(), l.Addr().String(), 1001); !errors.Is(err, errBulk) {
		t.Errorf("a part of a body, up: %v", err)
	}
}
