package main

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Who opens many connections is cut off at once, keeps nobody else out, and may come again when he has closed them.
func TestAnAddressHasItsShareOfConnections(t *testing.T) {
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	activator := netip.MustParseAddr("127.0.0.9")
	l := bound(inner, 4, 3, func(a netip.Addr) bool { return a == activator })
	defer l.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	cut := func(what string, c net.Conn) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%s was not cut off: %v", what, err)
		}
	}
	for range 3 {
		dial("127.0.0.2")
	}
	first := <-accepted
	<-accepted
	<-accepted
	cut("the fourth of one address", dial("127.0.0.2"))
	dial("127.0.0.3")
	<-accepted
	cut("the fifth of all", dial("127.0.0.4"))
	for range 2 { // closed twice, counted once
		_ = first.Close()
	}
	dial("127.0.0.4")
	<-accepted
	cut("the fifth of all", dial("127.0.0.5"))

	var peer net.Conn
	for range 3 { // strangers have all there is, and keep no activator out
		dial(activator.String())
		peer = <-accepted
	}
	cut("the fourth of an activator", dial(activator.String()))
	_ = peer.Close()
	cut("the fifth of strangers, beside a place of an activator's", dial("127.0.0.6"))
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
