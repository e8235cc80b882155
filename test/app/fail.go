package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// early413 answers before the body was sent.
func (s *server) early413(w http.ResponseWriter, r *http.Request, p *params) {
	then := p.choice("then", "", "reset")
	if p.bad(w) {
		return
	}
	const text = "too large\n"
	w.Header().Set("Connection", "close") // or net/http reads 256 KiB of the body before it sends the headers
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusRequestEntityTooLarge)
	io.WriteString(w, text)
	http.NewResponseController(w).Flush()
	if then == "reset" {
		abort(r)
	}
}

// stall never answers.
func (s *server) stall(w http.ResponseWriter, r *http.Request, p *params) {
	read := p.choice("read", "1", "0")
	if p.bad(w) {
		return
	}
	if read == "1" {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	} else if r.ProtoMajor == 1 && r.Body != http.NoBody {
		// net/http looks for the client's departure only behind the body.
		if connOf(r).waitGone() == nil {
			s.counters.cancelled.Add(1)
		}
		panic(http.ErrAbortHandler)
	}
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// crash dies in mid-body.
func (s *server) crash(w http.ResponseWriter, r *http.Request, p *params) {
	after, length, how := p.size("after", 0), p.size("cl", -1), p.choice("how", "exit", "reset", "fin")
	code, headers, reused := p.integer("code", 1), p.choice("headers", "1", "0"), p.choice("reused", "0", "1")
	if p.bad(w) {
		return
	}
	if reused == "1" && connOf(r).requests.Load() == 1 {
		io.WriteString(w, "not on a new connection\n")
		return
	}
	if headers == "1" {
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		}
		rc := fullDuplex(w) // it also dies in the middle of an upload
		s.writeLetters(w, 0, after)
		rc.Flush()
	}
	if r.ProtoMajor == 2 && how != "reset" {
		pause(r, 50*time.Millisecond) // Flush leaves the last frames to another goroutine, and nothing tells when they were written
	}
	switch how {
	case "exit":
		fmt.Fprintln(os.Stderr, "crashing, as a request says")
		os.Exit(code)
	case "reset":
		abort(r)
	case "fin":
		connOf(r).cut(false)
		panic(http.ErrAbortHandler)
	}
}

// refuse closes the listening socket for a while.
func (s *server) refuse(w http.ResponseWriter, _ *http.Request, p *params) {
	d := p.duration("for")
	if p.bad(w) {
		return
	}
	s.gate.Refuse(d)
	fmt.Fprintf(w, "refusing for %v\n", d)
}

// exitNow ends the process, this answer included.
func (s *server) exitNow(w http.ResponseWriter, _ *http.Request, p *params) {
	code := p.integer("code", 0)
	if p.bad(w) {
		return
	}
	select {
	case s.exit <- exitCode(code):
	default: // somebody was faster
	}
	fmt.Fprintf(w, "exiting with status %d\n", code)
}
