package model

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

// trusted is for how long a condemned endpoint must have stayed alive to be trusted again.
const trusted = time.Second

// model is what must hold. It is told of everything, by whoever does it, at the time that it is done.
type model struct {
	w     *world
	start time.Time

	mu       sync.Mutex // guards the following
	notes    []note
	failures []string
	gates    map[scaling.Key]*hold.Gate
	records  []*record
	tickets  int // orders what is not at the same time

	capacity  map[string]bound    // by service and endpoint
	inFlight  map[string]int      // by service and endpoint
	condemned map[string]sentence // by endpoint
	sleeps    map[string][]string // by target: who was condemned by the sleep under way
	targets   map[scaling.Key]scaling.Target
	changed   map[string]time.Time // by target: when a service came to it last
	open      map[*connection]bool
	notifies  int
	writes    int
}

// record is what became of one request.
type record struct {
	request
	number int
	key    scaling.Key

	before, after int    // tickets when it asked for its first lease, and when it had the answer
	holds         []span // when it waited
	grants        []time.Time
	told, took    int
	end           string
	endpoint      string // that it is at, or empty
}

type span struct{ from, to time.Time }

// bound is a capacity, and the largest that held at the same moment: who was granted just before may be noted just after.
type bound struct {
	now, largest int
	since        time.Time
}

// sentence is what is known of a condemned endpoint.
type sentence struct {
	since time.Time // the last write since which its fate is open
	open  bool      // that write has not ended
}

func (m *model) init(w *world) {
	m.w, m.start = w, time.Now()
	m.gates = make(map[scaling.Key]*hold.Gate)
	m.capacity = make(map[string]bound)
	m.inFlight = make(map[string]int)
	m.condemned = make(map[string]sentence)
	m.sleeps = make(map[string][]string)
	m.changed = make(map[string]time.Time)
	m.open = make(map[*connection]bool)
}

func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failLocked(format, args...)
}

func (m *model) failLocked(format string, args ...any) {
	m.failures = append(m.failures, fmt.Sprintf(format, args...))
	m.noteLocked("VIOLATED: "+format, args...)
}

func (m *model) configured(services []*scaling.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.targets = make(map[scaling.Key]scaling.Target)
	for _, s := range services {
		m.targets[s.Key] = s.Target
		m.changed[s.Target.Name] = time.Now()
	}
}

func (m *model) adopted(services []*scaling.Service, gates []*hold.Gate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.gates)
	for i, s := range services {
		m.gates[s.Key] = gates[i]
	}
}

func (m *model) gate(key scaling.Key) *hold.Gate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gates[key]
}

// viewed notes the capacities that a gate is about to be told.
func (m *model) viewed(service scaling.Key, view *scaling.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range view.Ready {
		at := service.Name + " " + e.ID
		c := e.Capacity
		if c == 0 {
			c = 1 << 30
		}
		b := m.capacity[at]
		if b.now == c {
			continue
		}
		if b.since.Equal(time.Now()) {
			b.largest = max(b.largest, c)
		} else {
			b.largest = max(b.now, c)
		}
		b.now, b.since = c, time.Now()
		m.capacity[at] = b
	}
	m.noteLocked("view of %s: %v", service.Name, (*shownView)(view))
}

func (m *model) notified(key scaling.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked("notify %s", key.Name)
	if m.notifies++; m.notifies == 20_000 {
		m.failLocked("notified 20,000 times")
	}
}

func (m *model) arrived(key scaling.Key, r request) *record {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec := &record{request: r, number: len(m.records), key: key}
	m.records = append(m.records, rec)
	return rec
}

func (m *model) acquiring(r *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tickets++
	r.before = m.tickets
	m.noteLocked("request %d arrives at %s", r.number, r.key.Name)
}

func (m *model) acquired(r *record, outcome hold.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tickets++
	r.after = m.tickets
	if outcome == hold.Held {
		r.holds = append(r.holds, span{from: time.Now()})
	}
}

func (m *model) heldAgain(r *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.holds = append(r.holds, span{from: time.Now()})
}

func (m *model) told(r *record, what, where string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.told++
	m.noteLocked("request %d is %s %s", r.number, what, where)
}

func (m *model) took(r *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.took++
	r.endHold()
}

func (r *record) endHold() {
	if last := len(r.holds) - 1; last >= 0 && r.holds[last].to.IsZero() {
		r.holds[last].to = time.Now()
	}
}

func (m *model) ended(r *record, how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.end != "" {
		m.failLocked("request %d has ended twice: %s, %s", r.number, r.end, how)
	}
	r.end = how
	r.endHold()
	m.noteLocked("request %d: %s", r.number, how)
}

// leased notes a lease: no endpoint has more than its capacity, and no condemned one has a new request.
func (m *model) leased(r *record, e scaling.Endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.endpoint = e.ID
	r.grants = append(r.grants, time.Now())
	at := r.key.Name + " " + e.ID
	m.inFlight[at]++
	b := m.capacity[at]
	most := b.now
	if b.since.Equal(time.Now()) {
		most = b.largest
	}
	m.noteLocked("request %d has a lease on %s, %d in flight", r.number, e.ID, m.inFlight[at])
	if m.inFlight[at] > most {
		m.failLocked("%d requests are in flight at %s, whose capacity is %d", m.inFlight[at], at, most)
	}
	if s, ok := m.condemned[e.ID]; ok && (s.open || time.Since(s.since) < trusted) {
		m.failLocked("request %d goes to %s, which was condemned", r.number, e.ID)
	}
}

func (m *model) unleased(r *record, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.endpoint = ""
	m.inFlight[r.key.Name+" "+id]--
}

// sleeping notes that a sleep is about to be written: nobody is in flight, and the endpoints are condemned.
func (m *model) sleeping(target scaling.Target, known []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked("sleep condemns %v", known)
	if !m.changed[target.Name].Equal(time.Now()) {
		for _, r := range m.records {
			if r.endpoint != "" && targetOf(r.endpoint) == target.Name && m.targets[r.key] == target {
				m.failLocked("a sleep of %s is written while request %d is in flight at %s", target, r.number, r.endpoint)
			}
		}
	}
	m.ripenLocked(target)
	m.sleeps[target.Name] = nil
	for _, id := range known {
		if _, before := m.condemned[id]; !before {
			m.sleeps[target.Name] = append(m.sleeps[target.Name], id)
		}
		m.condemned[id] = sentence{since: time.Now(), open: true}
	}
}

// wrote notes the end of a scale write.
func (m *model) wrote(target scaling.Target, sleep bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writes++; m.writes == 2000 {
		m.failLocked("the scale was written 2,000 times")
	}
	m.ripenLocked(target)
	for id, s := range m.condemned {
		if targetOf(id) == target.Name {
			m.condemned[id] = sentence{since: time.Now(), open: s.open && !sleep}
		}
	}
	if _, refused := errors.AsType[*scaling.Failure](err); refused && sleep { // for certain: nothing was written
		for _, id := range m.sleeps[target.Name] {
			delete(m.condemned, id)
		}
	}
}

// ripenLocked acquits those who may be trusted by now: only another sleep condemns them again.
func (m *model) ripenLocked(target scaling.Target) {
	for id, s := range m.condemned {
		if targetOf(id) == target.Name && !s.open && time.Since(s.since) >= trusted {
			delete(m.condemned, id)
		}
	}
}

// unended reports whether any request is under way.
func (m *model) unended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.records, func(r *record) bool { return r.end == "" })
}

// wantProgress checks that nobody waits at a service that serves nobody, long after all was mended.
func (m *model) wantProgress() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	serving := make(map[scaling.Key]bool)
	for _, r := range m.records {
		serving[r.key] = serving[r.key] || r.endpoint != ""
	}
	for _, r := range m.records {
		if r.end == "" && !serving[r.key] {
			m.failLocked("request %d still waits for %s", r.number, r.key)
		}
	}
	return len(m.failures) == 0
}

// wantServed checks that the requests which came when all was mended were served.
func (m *model) wantServed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if r.mustBeServed && r.end != "served" {
			m.failLocked("request %d, which came to a healthy service, was not served: %q", r.number, r.end)
		}
	}
}

// wantNothingLeft checks, at the end of all, what can only be seen then.
func (m *model) wantNothingLeft() {
	requests, bytes := m.w.gates.Budget.Held()
	m.mu.Lock()
	defer m.mu.Unlock()
	if requests != 0 || bytes != 0 {
		m.failLocked("%d requests of %d bytes are held in the end", requests, bytes)
	}
	for key, gate := range m.gates {
		if a := m.w.gates.Activity(key); a.Busy() {
			m.failLocked("activity of %s in the end: %+v", gate.Key(), a)
		}
	}
	for at, n := range m.inFlight {
		if n != 0 {
			m.failLocked("%d requests are in flight at %s in the end", n, at)
		}
	}
	for c := range m.open {
		m.failLocked("a connection to %s was not closed", c.endpoint)
	}
	for _, r := range m.records {
		switch {
		case r.end == "":
			m.failLocked("request %d was lost", r.number)
		case r.told != r.took:
			m.failLocked("request %d was told %d times and heard %d", r.number, r.told, r.took)
		}
	}
	m.wantOrderLocked()
}

// wantOrderLocked checks that nobody was granted a lease while somebody who had come before waited.
func (m *model) wantOrderLocked() {
	type grant struct {
		at time.Time
		to *record
	}
	grants := make(map[scaling.Key][]grant)
	for _, r := range m.records {
		for _, at := range r.grants {
			grants[r.key] = append(grants[r.key], grant{at, r})
		}
	}
	for _, list := range grants {
		slices.SortFunc(list, func(a, b grant) int { return a.at.Compare(b.at) })
	}
	for _, older := range m.records {
		list := grants[older.key]
		for _, wait := range older.holds {
			first := sort.Search(len(list), func(i int) bool { return list[i].at.After(wait.from) })
			for _, g := range list[first:] {
				if !g.at.Before(wait.to) {
					break
				}
				if older.after < g.to.before {
					m.failLocked("request %d overtook request %d", g.to.number, older.number)
				}
			}
		}
	}
}
