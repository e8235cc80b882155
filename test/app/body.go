package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
)

// bytes sends n letters.
func (s *server) bytes(w http.ResponseWriter, r *http.Request, p *params) {
	n, chunk, delay, length := p.size("n", 0), p.size("chunk", 0), p.duration("delay"), p.choice("cl", "0", "1")
	if p.bad(w) {
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/plain")
	if length == "1" {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	} else {
		rc.Flush() // or net/http gives a short body a Content-Length
	}
	if chunk == 0 && delay > 0 {
		chunk = 32 << 10
	}
	if chunk == 0 {
		s.writeLetters(w, 0, n)
		return
	}
	for sent := int64(0); sent < n; sent += chunk {
		if sent > 0 {
			pause(r, delay)
		}
		if err := s.writeLetters(w, sent, min(chunk, n-sent)); err != nil {
			return
		}
		rc.Flush()
	}
}

// writeLetters writes n letters, beginning with the one that stands at offset.
func (s *server) writeLetters(w io.Writer, offset, n int64) error {
	for n > 0 {
		written, err := io.WriteString(w, s.letters[offset%26:][:min(n, int64(len(s.letters))-26)])
		if err != nil {
			return err
		}
		offset += int64(written)
		n -= int64(written)
	}
	return nil
}

// echo sends the body back while it comes.
func (s *server) echo(w http.ResponseWriter, r *http.Request, _ *params) {
	rc := fullDuplex(w)
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	if r.Header.Get("Expect") == "" { // else the first read asks for the body with a 100, which must come before the headers
		rc.Flush()
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			rc.Flush()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// fullDuplex lets the answer begin before the request's body has been read.
func fullDuplex(w http.ResponseWriter) *http.ResponseController {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err) // net/http's own writers can
	}
	return rc
}

// upload reads the body to its end and says what it was.
func (s *server) upload(w http.ResponseWriter, r *http.Request, _ *params) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		s.counters.truncated.Add(1)
		panic(http.ErrAbortHandler)
	}
	s.counters.uploads.Add(1)
	writeJSON(w, map[string]any{"bytes": n, "sha256": hex.EncodeToString(hash.Sum(nil))})
}
