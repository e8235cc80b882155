package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// params reads a request's query and remembers the first error: a handler reads all it needs, then asks bad.
type params struct {
	values url.Values
	err    error
}

// duration is the named duration, or 0.
func (p *params) duration(name string) time.Duration {
	text := p.values.Get(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	p.fail(name, err)
	return d
}

// integer is the named number, or the one given.
func (p *params) integer(name string, otherwise int) int {
	text := p.values.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	p.fail(name, err)
	return n
}

// size is the named number of bytes, or the one given.
func (p *params) size(name string, otherwise int64) int64 {
	text := p.values.Get(name)
	if text == "" {
		return otherwise
	}
	digits := strings.TrimRight(text, "kmg")
	unit, ok := map[string]uint64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err == nil && (!ok || n > math.MaxInt64/unit) {
		err = fmt.Errorf("%q is not a number of bytes", text)
	}
	p.fail(name, err)
	return int64(n * unit)
}

// choice is one of the words given, by default the first.
func (p *params) choice(name string, words ...string) string {
	text := p.values.Get(name)
	if text == "" {
		return words[0]
	}
	for _, word := range words {
		if text == word {
			return word
		}
	}
	p.fail(name, fmt.Errorf("%q is none of %q", text, words))
	return ""
}

func (p *params) fail(name string, err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("parameter %s: %w", name, err)
	}
}

// bad answers with 400 if a parameter was bad.
func (p *params) bad(w http.ResponseWriter) bool {
	if p.err != nil {
		http.Error(w, p.err.Error(), http.StatusBadRequest)
	}
	return p.err != nil
}

// writeJSON answers with v, indented for people.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // fails only if the client has gone
}
