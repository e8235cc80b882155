package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// conversation is what became of the bytes that a client sent on one connection.
type conversation struct {
	answers []answered
	ended   bool   // the connection ended, in time and after a whole answer
	rest    string // what came and is no answer
}

// answered is one final answer.
type answered struct {
	status   int
	recorded int // the number that the recorder gave the request, or -1: Dormouse answered it
	close    bool
	header   http.Header
	body     string
}

// converse sends parts, each as a segment of its own, and reads answers until the connection ends or patience does.
func (p *proxy) converse(t testing.TB, r *recorder, patience time.Duration, parts ...string) (v conversation) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		deliver(c, parts...)
	}()
	defer func() { <-sent }()
	all, err := io.ReadAll(c)
	requests, _ := r.all()
	v = parseAnswers(all, requests)
	v.ended = !errors.Is(err, os.ErrDeadlineExceeded) && v.rest == ""
	if !v.ended {
		_ = c.Close() // deliver may be writing
	}
	return v
}

// parseAnswers takes answers apart. Which of them answer HEAD is known from what was recorded.
func parseAnswers(all []byte, requests []recorded) (v conversation) {
	buf := bufio.NewReader(bytes.NewReader(all))
	for {
		if _, err := buf.Peek(1); err != nil {
			return v
		}
		before, _ := io.ReadAll(buf)
		buf = bufio.NewReader(bytes.NewReader(before))
		resp, err := http.ReadResponse(buf, nil)
		if err != nil {
			v.rest = string(before)
			return v
		}
		if resp.StatusCode < 200 {
			continue
		}
		a := answered{status: resp.StatusCode, recorded: -1, close: resp.Close, header: resp.Header}
		if n, err := strconv.Atoi(resp.Header.Get("Recorded")); err == nil {
			a.recorded = n
		}
		if a.recorded < 0 || a.recorded >= len(requests) || requests[a.recorded].Method != http.MethodHead {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				v.rest = string(before)
				return v
			}
			a.body = string(body)
		}
		v.answers = append(v.answers, a)
	}
}

// outcome says, in order, which requests the application answered, and with which status Dormouse did.
func (v conversation) outcome(requests []recorded) string {
	var all []string
	for _, a := range v.answers {
		switch {
		case a.recorded >= 0 && a.recorded < len(requests):
			all = append(all, requests[a.recorded].String())
		default:
			all = append(all, strconv.Itoa(a.status))
		}
	}
	return strings.Join(all, "; ")
}

// last returns the last answer; the zero one if there is none.
func (v conversation) last() answered {
	if len(v.answers) == 0 {
		return answered{}
	}
	return v.answers[len(v.answers)-1]
}
