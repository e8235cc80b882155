package traffic

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Request is one request of a client's, from when it was begun.
type Request struct {
	ID      uint64
	Kind    Kind
	Service string
	Front   *Front
	Began   time.Time
	Local   net.Addr // of its connection; nil: it had none, or it is not known
	Timing  string   // Server-Timing of its answer: how long it was held, and for what
}

// Failure is a request that was not answered as it should have been.
type Failure struct {
	Request

	Took time.Duration
	Err  error
}

func (f Failure) String() string {
	return fmt.Sprintf("request %d (%s to %s by %s, from %v, begun %s, over after %v): %v", f.ID, f.Kind, f.Service, f.Front.Name,
		f.Local, f.Began.Format("15:04:05.000"), f.Took.Round(time.Millisecond), f.Err)
}

// Answer is a request that was answered as it should be.
type Answer struct {
	Request

	Took time.Duration
}

func (a Answer) String() string {
	return fmt.Sprintf("request %d (%s to %s by %s, begun %s) after %v: %s", a.ID, a.Kind, a.Service, a.Front.Name,
		a.Began.Format("15:04:05.000"), a.Took.Round(time.Millisecond), a.Timing)
}

// Counts is what became of all requests.
type Counts struct {
	Sent     int
	Answered int
	ByKind   map[Kind]int // of those that were answered
	Killed   []Failure    // failed at a front that was killed while they were open there
	Unsent   int          // found no connection to a front that had just been killed
	Lost     []Failure    // failed otherwise
	Open     []Request    // have had no answer yet
	Twice    []uint64     // were answered more than once
	Slowest  Answer
	Held     int // answered only after more than a tenth of a second
}

// Recorder keeps the books. Its zero value is empty; its methods may be called at the same time.
type Recorder struct {
	mu     sync.Mutex // guards the following
	next   uint64
	open   map[uint64]*Request
	counts Counts
	cut    map[string][]time.Time // when connections from this address were cut, by the death of who had them
}

// Begin opens a request.
func (r *Recorder) Begin(kind Kind, service string, front *Front) *Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open, r.counts.ByKind = make(map[uint64]*Request), make(map[Kind]int)
	}
	r.next++
	r.counts.Sent++
	q := &Request{ID: r.next, Kind: kind, Service: service, Front: front, Began: time.Now()}
	r.open[q.ID] = q
	return q
}

// End closes a request: err is why it was not answered as it should have been, or nil.
func (r *Recorder) End(q *Request, err error) {
	took := time.Since(q.Began)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[q.ID] == nil {
		r.counts.Twice = append(r.counts.Twice, q.ID)
		return
	}
	delete(r.open, q.ID)
	switch {
	case err == nil:
		r.counts.Answered++
		r.counts.ByKind[q.Kind]++
		if took > r.counts.Slowest.Took {
			r.counts.Slowest = Answer{*q, took}
		}
		if took > 100*time.Millisecond {
			r.counts.Held++
		}
	case q.Front.Killed() && q.Local == nil:
		r.counts.Unsent++
	case q.Front.Killed():
		r.counts.Killed = append(r.counts.Killed, Failure{*q, took, err})
	default:
		r.counts.Lost = append(r.counts.Lost, Failure{*q, took, err})
	}
}

// Excuse tells which connections through a shared front were cut at a time, by the addresses that they come from: they led
// to an activator that was killed.
func (r *Recorder) Excuse(at time.Time, locals ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut == nil {
		r.cut = make(map[string][]time.Time)
	}
	for _, local := range locals {
		r.cut[local] = append(r.cut[local], at)
	}
}

// Counts returns what became of the requests so far.
func (r *Recorder) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.Killed, c.Lost, c.Twice = slices.Clone(c.Killed), nil, slices.Clone(c.Twice)
	for _, f := range r.counts.Lost {
		if r.excused(f) {
			c.Killed = append(c.Killed, f)
		} else {
			c.Lost = append(c.Lost, f)
		}
	}
	for _, q := range r.open {
		c.Open = append(c.Open, *q)
	}
	return c
}

// excused reports whether a request was open on a connection when that was cut.
func (r *Recorder) excused(f Failure) bool {
	if !f.Front.shared || f.Local == nil {
		return false
	}
	return slices.ContainsFunc(r.cut[f.Local.String()], func(at time.Time) bool {
		const about = time.Second // from the cut to the client's learning of it, on a busy machine
		return f.Began.Before(at.Add(about)) && f.Began.Add(f.Took).After(at.Add(-about))
	})
}
