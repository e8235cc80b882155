package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnAnswerEndsAtTheSameByteHoweverItIsCut(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-Length:  5 \r\nConnection: keep-alive\r\n\r\nhello"
	for cut := 1; cut < len(answer); cut++ {
		var r reply
		for round := range 2 { // the connection is used again
			if done, err := r.feed([]byte(answer[:cut])); done || err != nil {
				t.Fatalf("cut at %d, round %d: done %v, %v before its end", cut, round, done, err)
			}
			if done, err := r.feed([]byte(answer[cut:])); !done || err != nil {
				t.Fatalf("cut at %d, round %d: done %v, %v at its end", cut, round, done, err)
			}
		}
	}
	if done, err := new(reply).feed([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")); !done || err != nil {
		t.Errorf("an empty answer: done %v, %v", done, err)
	}
}

func TestOnlyAnswersThatWereAskedForCount(t *testing.T) {
	for name, answer := range map[string]string{
		"another status": "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
		"another length": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"no length":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if done, err := new(reply).feed([]byte(answer)); done || !errors.Is(err, errReply) {
			t.Errorf("%s: done %v, %v", name, done, err)
		}
	}
}

// A server that stops for a while must not stop the clock: those who were due meanwhile have waited.
func TestLatencyCountsFromWhenARequestWasDue(t *testing.T) {
	const stall = 200 * time.Millisecond
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var served atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if n, _ := io.Copy(io.Discard, req.Body); n != 7 || req.Method != http.MethodPost {
						return
					}
					if served.Add(1) == 20 {
						<-time.After(stall)
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()

	o := &openLoop{interval: time.Millisecond, request: requestBytes(http.MethodPost, "/", 7)}
	if err := o.connect(netip.MustParseAddrPort(l.Addr().String()), 1); err != nil {
		t.Fatal(err)
	}
	p, err := o.run(400)
	if err != nil {
		t.Fatal(err)
	}
	if n := served.Load(); n != 400 || p.requests != 400 || len(o.latencies) != 400 {
		t.Errorf("%d requests were served, %d counted; want 400", n, p.requests)
	}
	if p.took < 399*time.Millisecond {
		t.Errorf("400 requests at 1,000 a second took %v", p.took)
	}
	// With one connection, some two hundred were due while nothing was answered; half of those waited for half of it.
	late := 0
	for _, l := range o.latencies {
		if l > stall/2 {
			late++
		}
	}
	if late < 90 {
		t.Errorf("%d requests were late by %v or more; want about 100", late, stall/2)
	}
	back, err := readPaced("400 399ms 1ms 150ms\n")
	if want := (paced{400, 399 * time.Millisecond, time.Millisecond, 150 * time.Millisecond}); err != nil || back != want {
		t.Errorf("what was printed reads %v, %v", back, err)
	}
}
