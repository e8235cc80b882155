package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// index says who answers.
func (s *server) index(w http.ResponseWriter, r *http.Request, _ *params) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "This is %s, process %d, by %s.\n", s.cfg.name, os.Getpid(), r.Proto)
}

// healthz says whether it is ready.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request, _ *params) {
	if !s.ready.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

// conn says which connection the request came on.
func (s *server) conn(w http.ResponseWriter, r *http.Request, _ *params) {
	c := connOf(r)
	writeJSON(w, map[string]any{"remote": r.RemoteAddr, "serial": c.serial, "request": c.requests.Load(), "proto": r.Proto})
}

// headers says what was received.
func (s *server) headers(w http.ResponseWriter, r *http.Request, _ *params) {
	var lines []string
	if r.ProtoMajor == 1 {
		lines = connOf(r).lines(r)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil { // the trailers come behind the body
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, map[string]any{
		"method":           r.Method,
		"requestURI":       r.RequestURI,
		"host":             r.Host,
		"proto":            r.Proto,
		"headers":          r.Header, // in Go's form
		"lines":            lines,    // as received
		"trailers":         r.Trailer,
		"contentLength":    r.ContentLength,
		"transferEncoding": r.TransferEncoding,
	})
}

// status answers with the path's status.
func (s *server) status(w http.ResponseWriter, r *http.Request, _ *params) {
	code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/status/"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "not a status from 200 to 599", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, "%d %s\n", code, http.StatusText(code)) // dropped by net/http where the status has no body
}

// delay answers slowly.
func (s *server) delay(w http.ResponseWriter, r *http.Request, p *params) {
	headers, body := p.duration("headers"), p.duration("body")
	if p.bad(w) {
		return
	}
	pause(r, headers)
	http.NewResponseController(w).Flush()
	pause(r, body)
	io.WriteString(w, "ok\n")
}

// trailers answers with trailers in both directions.
func (s *server) trailers(w http.ResponseWriter, r *http.Request, _ *params) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Trailer", "X-Body-Sha256")
	writeJSON(w, r.Trailer)
	w.Header().Set("X-Body-Sha256", hex.EncodeToString(hash.Sum(nil)))
	w.Header().Set(http.TrailerPrefix+"X-Body-Bytes", strconv.FormatInt(n, 10))
}

// earlyHints answers twice.
func (s *server) earlyHints(w http.ResponseWriter, r *http.Request, p *params) {
	delay := p.duration("delay")
	if p.bad(w) {
		return
	}
	w.Header().Add("Link", "</style.css>; rel=preload; as=style")
	w.Header().Add("Link", "</script.js>; rel=preload; as=script")
	w.WriteHeader(http.StatusEarlyHints)
	pause(r, delay)
	io.WriteString(w, "ok\n")
}
