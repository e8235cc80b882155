package elastiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	// maxStreams bounds how many event streams are served at once.
	maxStreams = 64

	// maxUnsent bounds how many changes wait for a slow reader. One that falls behind further is told so, and starts over
	// with what is current.
	maxUnsent = 1024

	// heartbeat is how often a stream without news says that it is still there, so that neither end nor anybody between
	// takes it for dead.
	heartbeat = 15 * time.Second

	// patience is how long a reader may take nothing at all before its stream is broken off.
	patience = 30 * time.Second
)

// change is a change of a service's state, as an event stream tells it.
type change struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Failure   *failure  `json:"failure,omitempty"`
}

// lost tells a reader that it was too slow for so many changes.
type lost struct {
	Changes int `json:"changes"`
}

// serveEvents serves the changes of state as server-sent events (WHATWG HTML, section 9.2), until the client leaves or
// Run ends; where there is a Guard, for ten minutes at most.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	if s.doorkeeper != nil {
		ctx, cancel := context.WithTimeout(r.Context(), maxEvents)
		defer cancel()
		r = r.WithContext(ctx)
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		writeProblem(w, problem{Status: http.StatusServiceUnavailable, Detail: "Too many event streams are open."})
		return
	}
	news := &newsQueue{signal: make(chan struct{}, 1)}
	unsubscribe := s.scaleHandler.Subscribe(news.add)
	defer unsubscribe()

	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // nginx holds answers back otherwise
	out := &eventStream{w: w, control: http.NewResponseController(w)}
	_ = s.tell(r, out, news) // an error is a client that has left or takes nothing: nobody is there to be told
}

// tell writes the current state of all services, then every change. It returns nil when Run has ended.
func (s *Server) tell(r *http.Request, out *eventStream, news *newsQueue) error {
	current, err := s.tellCurrent(out)
	if err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-s.stopping:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		case <-beat.C:
			current = nil // no notice takes that long: what comes now is newer
			if err := out.comment("still here"); err != nil {
				return err
			}
		case <-news.signal:
			notices, dropped := news.take()
			if dropped > 0 {
				if err := out.event("lost", lost{dropped}); err != nil {
					return err
				}
				if current, err = s.tellCurrent(out); err != nil {
					return err
				}
				continue
			}
			for _, n := range notices {
				if n.Time.After(current[n.Target]) {
					if err := out.changes(n); err != nil {
						return err
					}
				}
			}
			if err := out.flush(); err != nil {
				return err
			}
		}
	}
}

// tellCurrent writes the state of all services, and returns since when each target is in the state that was written:
// notices up to then have nothing to add.
func (s *Server) tellCurrent(out *eventStream) (map[scaling.Target]time.Time, error) {
	keys := s.scaleHandler.Services()
	since := make(map[scaling.Target]time.Time, len(keys))
	for _, key := range keys {
		status, ok := s.scaleHandler.Status(key)
		if !ok {
			continue
		}
		// Of two services of one target, the first was read earlier.
		if _, ok := since[status.Target]; !ok {
			since[status.Target] = status.Since
		}
		if err := out.event("service", present(status)); err != nil {
			return nil, err
		}
	}
	return since, out.flush()
}

// eventStream writes events to one client.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	id      int // of the last event
}

func (e *eventStream) changes(n scaling.Notice) error {
	c := change{Time: n.Time.UTC(), From: n.From.String(), To: n.To.String()}
	if n.To == scaling.StateFailed && n.Failure != nil {
		c.Failure = presentFailure(n.Failure)
	}
	for _, key := range n.Services {
		c.Namespace, c.Name = key.Namespace, key.Name
		if err := e.event("state", c); err != nil {
			return err
		}
	}
	return nil
}

func (e *eventStream) event(kind string, data any) error {
	encoded, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", kind, err)
	}
	e.id++
	return e.write("id: %d\nevent: %s\ndata: %s\n\n", e.id, kind, encoded)
}

func (e *eventStream) comment(text string) error {
	if err := e.write(": %s\n\n", text); err != nil {
		return err
	}
	return e.flush()
}

func (e *eventStream) write(format string, args ...any) error {
	// Each write has its own deadline, in place of the server's for the whole answer.
	if err := e.control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	_, err := fmt.Fprintf(e.w, format, args...)
	return err
}

func (e *eventStream) flush() error { return e.control.Flush() }

// newsQueue holds the changes that are still to be sent to one client.
type newsQueue struct {
	signal chan struct{} // capacity 1: there is something to take

	mu      sync.Mutex // guards the following
	notices []scaling.Notice
	dropped int // since the last take
}

// add queues a notice of a change. Once there are too many, all of them are dropped until take was called.
func (q *newsQueue) add(n scaling.Notice) {
	if n.Kind != scaling.NoticeState {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.dropped > 0:
		q.dropped++
	case len(q.notices) == maxUnsent:
		q.dropped = len(q.notices) + 1
		q.notices = nil
	default:
		q.notices = append(q.notices, n)
	}
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *newsQueue) take() (notices []scaling.Notice, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	notices, dropped = q.notices, q.dropped
	q.notices, q.dropped = nil, 0
	return notices, dropped
}
