package model

import (
	"fmt"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// note is a line of the story, put into words only if it is told.
type note struct {
	at     time.Duration
	format string
	args   []any
}

func (m *model) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked(format, args...)
}

func (m *model) noteLocked(format string, args ...any) {
	m.notes = append(m.notes, note{time.Since(m.start), format, args})
}

// report fails the test if anything was violated, with the story that led there.
func (m *model) report() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.failures) == 0 {
		return
	}
	var story strings.Builder
	for _, n := range m.notes {
		fmt.Fprintf(&story, "\n%15v  %s", n.at, fmt.Sprintf(n.format, n.args...))
	}
	m.w.t.Errorf("%s%s", strings.Join(m.failures, "\n"), story.String())
}

// shownView is a View in words.
type shownView scaling.View

func (v *shownView) String() string {
	words := make([]string, 0, len(v.Ready)+2)
	for _, e := range v.Ready {
		words = append(words, e.ID)
	}
	if v.Asleep {
		words = append(words, "asleep")
	}
	if v.Failure != nil {
		words = append(words, string(v.Failure.Reason))
	}
	return strings.Join(words, " ")
}

// shownSnapshot is a snapshot in words.
type shownSnapshot scaling.Endpoints

func (s *shownSnapshot) String() string {
	words := []string{fmt.Sprintf("%s spec=%d", s.Service.Name, s.Spec)}
	if s.Settled {
		words = append(words, "settled")
	}
	for _, e := range s.Ready {
		words = append(words, "ready="+e.ID)
	}
	for _, p := range s.Pending {
		words = append(words, "pending="+p.ID)
	}
	if s.Failure != nil {
		words = append(words, "failure="+string(s.Failure.Reason))
	}
	return strings.Join(words, " ")
}

// logWriter puts the log among the notes.
type logWriter struct{ w *world }

func (l logWriter) Write(line []byte) (int, error) {
	l.w.note("log: %s", strings.TrimSpace(string(line)))
	return len(line), nil
}
