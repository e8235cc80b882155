package local

import (
	"bytes"
	"strings"

	"go.uber.org/zap"
)

const (
	maxLine  = 16 << 10 // of output, in a log entry; the rest of the line is left out
	cutMark  = "… (cut)"
	tailSize = 20      // lines of stderr that explain a crash
	tailLine = 1 << 10 // of each of them
)

// lines is the stdout or stderr of a process: it logs each line when it is complete, or too long. Lines are logged by the
// goroutine that reads the pipe, so a process that writes faster than the log can take waits, and loses nothing.
type lines struct {
	log     func(line string)
	line    []byte
	cutting bool // the rest of the line is left out
}

// Write implements io.Writer. It never fails.
func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after
		l.add(part)
		if ended {
			l.end()
		}
	}
	return len(p), nil
}

func (l *lines) add(part []byte) {
	if l.cutting {
		return
	}
	l.line = append(l.line, part[:min(len(part), maxLine+1-len(l.line))]...)
	if len(l.line) > maxLine {
		l.log(string(l.line[:maxLine]) + cutMark)
		l.line, l.cutting = l.line[:0], true
	}
}

func (l *lines) end() {
	if !l.cutting {
		l.log(strings.TrimSuffix(string(l.line), "\r"))
	}
	l.line, l.cutting = l.line[:0], false
}

// flush logs what came after the last newline. It is called when nothing follows.
func (l *lines) flush() {
	if len(l.line) > 0 {
		l.end()
	}
}

// tail keeps the last lines of a stream.
type tail []string

func (t *tail) String() string { return strings.ToValidUTF8(strings.Join(*t, "\n"), "\uFFFD") }

func (t *tail) add(line string) {
	if len(line) > tailLine {
		line = line[:tailLine] + cutMark
	}
	if len(*t) == tailSize {
		copy(*t, (*t)[1:])
		*t = (*t)[:tailSize-1]
	}
	*t = append(*t, line)
}

// logLine logs a line of a process's output. The line is the message, as a person reads it; all else is fields.
func logLine(logger *zap.Logger, stream, line string) {
	logger.Info(strings.ToValidUTF8(line, "\uFFFD"), zap.String("stream", stream))
}
