package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// logBacklog is how many bytes of log lines may wait to be written. More are lost.
	logBacklog = 1 << 20

	// logFlush is how long the end of the process waits for the log to be taken.
	logFlush = time.Second
)

// logWriter stands between loggers and a stream that may be slow, stuck or full: a pipe that nobody reads blocks whoever
// writes to it, and a request must not wait for that. Write never blocks; lines for which there is no room are lost and
// counted. One goroutine, [logWriter.run], writes to the stream.
type logWriter struct {
	to io.Writer

	mu      sync.Mutex // guards the following
	waiting []byte     // whole lines
	spare   []byte     // what was written last, whose memory waiting uses next
	lost    int        // lines since the last that was told of
	closing bool

	changed chan struct{} // one token: there is something to do
	ended   chan struct{} // closed when run has ended
}

func newLogWriter(to io.Writer) *logWriter {
	return &logWriter{to: to, changed: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Write takes lines, all or none. It never fails.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	if len(w.waiting)+len(p) > logBacklog || w.closing {
		w.lost++
	} else {
		w.waiting = append(w.waiting, p...)
	}
	w.mu.Unlock()
	w.tell()
	return len(p), nil
}

// Sync implements zapcore.WriteSyncer: whoever logs does not wait.
func (w *logWriter) Sync() error { return nil }

// run writes what waits until the writer is closed. After lines were lost it calls report with their number, as soon as
// the stream takes anything again; report may log.
func (w *logWriter) run(report func(lines int)) {
	defer close(w.ended)
	var unreported int
	for {
		lines, lost, closing := w.take()
		unreported += lost
		switch {
		case len(lines) > 0:
			if n, err := w.to.Write(lines); err != nil { // the disk is full, the reader gone
				unreported += bytes.Count(lines[n:], []byte{'\n'})
			} else if unreported > 0 && !closing {
				report(unreported)
				unreported = 0
			}
		case closing:
			return
		default:
			<-w.changed
		}
	}
}

// take returns the lines that wait, and how many were lost since it was last called. They are valid until the next call.
func (w *logWriter) take() (lines []byte, lost int, closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, w.waiting, w.spare = w.waiting, w.spare[:0], w.waiting
	lost, w.lost = w.lost, 0
	return lines, lost, w.closing
}

// close writes what waits, for logFlush at most: a stream that is stuck does not keep the process from ending.
func (w *logWriter) close() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.tell()
	select {
	case <-w.ended:
	case <-time.After(logFlush):
	}
}

func (w *logWriter) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
