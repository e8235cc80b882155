package components

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// output takes what a go command prints. It writes it to a log of bounded length, counts what -v tells, and keeps the
// last lines of the rest, which say what went wrong.
type output struct {
	main string // The package that is linked last.

	mu        sync.Mutex // Guards the following.
	log       *os.File
	room      int // What the log may still take, once begun.
	begun     bool
	partial   []byte   // A line without its end yet.
	tail      []string // At most tailLines.
	compiling string   // The last package named.
	packages  int
	downloads int
}

const (
	logBytes  = 1 << 20
	tailLines = 20
	lineBytes = 2000
)

// Write implements [io.Writer]. It never fails: a log on a full disk must not end a build.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		o.begun, o.room = true, logBytes
	}
	n, _ := o.log.Write(b[:min(len(b), o.room)])
	o.room -= n
	o.partial = append(o.partial, b...)
	for {
		line, rest, found := bytes.Cut(o.partial, []byte("\n"))
		if !found && len(line) < lineBytes {
			break
		}
		o.line(string(line[:min(len(line), lineBytes)]))
		o.partial = rest
	}
	return len(b), nil
}

// progress says what the command is doing.
func (o *output) progress() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.main != "" && o.compiling == o.main:
		return "linking"
	case o.packages > 0:
		return fmt.Sprintf("%d packages compiled, now %s", o.packages, o.compiling)
	case o.downloads > 0:
		return fmt.Sprintf("%d modules downloaded", o.downloads)
	}
	return "reading packages, or linking"
}

// finish completes the log and returns the last lines that are not about progress.
func (o *output) finish() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 {
		o.line(string(o.partial))
		o.partial = nil
	}
	if o.begun && o.room == 0 {
		fmt.Fprintf(o.log, "\n… the log is full; the last lines were:\n%s\n", strings.Join(o.tail, "\n"))
	}
	return o.tail
}

// line takes note of a line. A line of -v is an import path and nothing else, which no error is.
func (o *output) line(line string) {
	line = strings.TrimRight(line, "\r")
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		o.downloads++
	case line == "":
	case strings.ContainsAny(line, " \t"):
		o.tail = append(o.tail, line)
		if len(o.tail) > tailLines {
			o.tail = slices.Delete(o.tail, 0, 1)
		}
	default:
		o.packages++
		o.compiling = line
	}
}
