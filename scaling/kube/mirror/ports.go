package mirror

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// PortRange is a range of ports, both ends included. The zero value is 10000–29999.
type PortRange struct {
	From, To int32
}

const (
	// rest is how long a freed port is nobody's: clients that have not heard yet would reach a stranger.
	rest = 10 * time.Minute

	// farewell is for how long after a port was left a mirror may lead there, while nobody listens at the next one.
	farewell = time.Minute
)

// Owners tells whose each port is, by what the resources' status says. Where several name a port it is the older one's
// (by creationTimestamp, then namespace and name). What is no port that a process may open without privileges, 1024 to
// 65535, is nobody's.
//
// The range that ports are given from is not asked: when it was changed, a port outside of it serves until its resource
// has been given another.
func Owners(resources []*v1alpha1.ElasticService) map[int32]scaling.Key {
	l := newLedger(anyPort(), 1024)
	for _, es := range resources {
		l.observe(time.Time{}, keyOf(es), claimOf(es))
	}
	owners := make(map[int32]scaling.Key, len(l.holders))
	for port, keys := range l.holders {
		owners[port] = keys[0]
	}
	return owners
}

// claim is the port that a resource's status names (0: none), and what decides between two that name the same.
type claim struct {
	port    int32
	created time.Time
}

// ledger knows who has which port, and gives out new ones. It is pure: who calls it says what time it is, and that one
// call is made at a time.
//
// A port that was freed rests for 10 minutes; then it is given out again when no port is left that this process has not
// seen in use, the one that was free longest first. That is not remembered over a restart; there it is chance that keeps
// a port from being used again at once: each process starts at another port.
type ledger struct {
	ports PortRange

	claims   map[scaling.Key]claim   // whether within the range or not; what is no port is none
	holders  map[int32][]scaling.Key // who claims a port, the one who has it first
	promised map[scaling.Key]int32   // given out, not seen in a claim yet
	promises map[int32]scaling.Key   // the same, by port
	freed    map[int32]time.Time     // ports that had a holder, and since when they have none
	leavers  map[int32]scaling.Key   // who held them last: its mirror may lead there still
	next     int32                   // where the search for an unused port goes on
}

// newLedger returns one that knows nothing and gives out the port start first.
func newLedger(ports PortRange, start int32) *ledger {
	return &ledger{
		ports:    ports,
		claims:   make(map[scaling.Key]claim),
		holders:  make(map[int32][]scaling.Key),
		promised: make(map[scaling.Key]int32),
		promises: make(map[int32]scaling.Key),
		freed:    make(map[int32]time.Time),
		leavers:  make(map[int32]scaling.Key),
		next:     start,
	}
}

// observe notes what a resource's status says, and returns who else should look again at whether it has its port.
func (l *ledger) observe(now time.Time, key scaling.Key, c claim) (others []scaling.Key) {
	if !anyPort().contain(c.port) {
		c.port = 0
	}
	before, known := l.claims[key]
	if known && before.port == c.port && before.created.Equal(c.created) {
		return nil // a promise may be on its way
	}
	others = l.leave(now, key, before.port)
	l.claims[key] = c
	if c.port == 0 {
		return others
	}
	if l.ports.contain(c.port) {
		l.keep(now, key, c.port)
	}
	delete(l.freed, c.port)
	if leaver, ok := l.leavers[c.port]; ok {
		delete(l.leavers, c.port)
		if leaver != key {
			others = append(others, leaver)
		}
	}
	l.holders[c.port] = append(l.holders[c.port], key)
	slices.SortFunc(l.holders[c.port], l.byAge)
	for _, holder := range l.holders[c.port] {
		if holder != key {
			others = append(others, holder)
		}
	}
	return others
}

// forget notes that a resource is gone, and returns who else should look again.
func (l *ledger) forget(now time.Time, key scaling.Key) (others []scaling.Key) {
	others = l.leave(now, key, l.claims[key].port)
	delete(l.claims, key)
	l.keep(now, key, 0)
	return others
}

// port returns the port that is a resource's, or 0. One outside of the range is its own until it is given another, which
// it needs.
func (l *ledger) port(key scaling.Key) (port int32, needs bool) {
	if port = l.claims[key].port; port == 0 || l.holders[port][0] != key {
		return 0, true
	}
	return port, !l.ports.contain(port)
}

// leftFor returns for how long a port that was left is sure to be given to nobody, or 0.
func (l *ledger) leftFor(now time.Time, port int32) time.Duration {
	if since, ok := l.freed[port]; ok {
		return max(0, farewell-now.Sub(since))
	}
	return 0
}

// allocate returns a port for a resource that has none: the same one until it is seen in its status. The error says
// which ports there are, and when one will be free.
func (l *ledger) allocate(now time.Time, key scaling.Key) (int32, error) {
	if port := l.promised[key]; port != 0 {
		return port, nil
	}
	port, ok := l.unused()
	if !ok {
		if port, ok = l.rested(now); !ok {
			return 0, l.exhausted(now)
		}
	}
	l.promised[key], l.promises[port] = port, key
	return port, nil
}

// unused finds a port that nobody was seen to have, going round.
func (l *ledger) unused() (int32, bool) {
	for range l.ports.size() {
		port := l.next
		if l.next++; l.next > l.ports.To {
			l.next = l.ports.From
		}
		_, freed := l.freed[port]
		_, promised := l.promises[port]
		if !freed && !promised && len(l.holders[port]) == 0 {
			return port, true
		}
	}
	return 0, false
}

// rested finds the port that was freed first, if it has rested.
func (l *ledger) rested(now time.Time) (int32, bool) {
	port, since := l.oldest()
	if port == 0 || now.Sub(since) < rest {
		return 0, false
	}
	delete(l.freed, port)
	return port, true
}

func (l *ledger) oldest() (port int32, since time.Time) {
	for candidate, at := range l.freed {
		if !l.ports.contain(candidate) {
			continue
		}
		if port == 0 || at.Before(since) || at.Equal(since) && candidate < port {
			port, since = candidate, at
		}
	}
	return port, since
}

func (l *ledger) exhausted(now time.Time) error {
	taken, resting := len(l.promises), 0
	for port := range l.holders {
		if l.ports.contain(port) {
			taken++
		}
	}
	for port := range l.freed {
		if l.ports.contain(port) {
			resting++
		}
	}
	if port, since := l.oldest(); port != 0 {
		wait := (rest - now.Sub(since)).Round(time.Second)
		return fmt.Errorf("no port is free among %s: %d are taken and %d rest for 10 minutes after their use; the next one is free in %s",
			l.ports, taken, resting, wait)
	}
	return fmt.Errorf("no port is free among %s: all %d are taken; give the activator more of them", l.ports, taken)
}

// keep ends a promise that is not for port. What was promised may have been written, so it rests like a port in use.
func (l *ledger) keep(now time.Time, key scaling.Key, port int32) {
	promised := l.promised[key]
	if promised == 0 {
		return
	}
	delete(l.promised, key)
	delete(l.promises, promised)
	if promised != port && len(l.holders[promised]) == 0 {
		l.freed[promised] = now
	}
}

func (l *ledger) leave(now time.Time, key scaling.Key, port int32) (others []scaling.Key) {
	if port == 0 {
		return nil
	}
	others = slices.DeleteFunc(l.holders[port], func(k scaling.Key) bool { return k == key })
	if len(others) == 0 {
		delete(l.holders, port)
		if _, promised := l.promises[port]; !promised {
			l.freed[port] = now
			l.leavers[port] = key
		}
		return nil
	}
	l.holders[port] = others
	return slices.Clone(others)
}

func (l *ledger) byAge(a, b scaling.Key) int {
	return cmp.Or(
		l.claims[a].created.Compare(l.claims[b].created),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
	)
}

// String returns "10000–29999".
func (r PortRange) String() string { return fmt.Sprintf("%d–%d", r.From, r.To) }

func (r PortRange) orDefault() PortRange {
	if r == (PortRange{}) {
		return PortRange{10000, 29999}
	}
	return r
}

// anyPort is what a process may open without privileges.
func anyPort() PortRange { return PortRange{1024, 65535} }

func (r PortRange) size() int32 { return r.To - r.From + 1 }

func (r PortRange) contain(port int32) bool { return r.From <= port && port <= r.To }

func (r PortRange) anywhere() int32 { return r.From + rand.Int32N(r.size()) }

func keyOf(es *v1alpha1.ElasticService) scaling.Key {
	return scaling.Key{Namespace: es.Namespace, Name: es.Name}
}

func claimOf(es *v1alpha1.ElasticService) claim {
	return claim{port: es.Status.ActivatorPort, created: es.CreationTimestamp.Time}
}
