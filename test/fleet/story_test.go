package fleet

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// story is what happened, and what of it should not have.
type story struct {
	start time.Time
	most  int // lines that are told: what led to a violation happened shortly before, most often

	mu       sync.Mutex // guards the following
	notes    []note     // a ring
	next     int
	failures []string
	counts   map[string]int
}

// note is a line of the story, put into words only if it is told.
type note struct {
	at     time.Duration
	format string
	args   []any
}

func (s *story) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(format, args...)
}

func (s *story) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) < 10 {
		s.failures = append(s.failures, fmt.Sprintf(format, args...))
		s.noteLocked("VIOLATED: "+format, args...)
	}
}

// count counts something that happened, so that one can see what schedules lead to.
func (s *story) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

func (s *story) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

// report fails the test if anything was violated, with the story that led there.
func (s *story) report(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return
	}
	var text strings.Builder
	for i := range s.notes {
		n := s.notes[(s.next+i)%len(s.notes)]
		fmt.Fprintf(&text, "\n%14v  %s", n.at, fmt.Sprintf(n.format, n.args...))
	}
	t.Errorf("%s%s", strings.Join(s.failures, "\n"), text.String())
}

func (s *story) noteLocked(format string, args ...any) {
	if len(s.failures) > 1 {
		return // what follows from the first is not of interest
	}
	n := note{time.Since(s.start), format, args}
	if len(s.notes) < s.most {
		s.notes = append(s.notes, n)
		return
	}
	s.notes[s.next] = n
	s.next = (s.next + 1) % s.most
}

// logWriter puts a process's log among the notes.
type logWriter struct {
	story *story
	name  string
}

func (l logWriter) Write(line []byte) (int, error) {
	l.story.note("%s: log: %s", l.name, strings.TrimSpace(string(line)))
	return len(line), nil
}
