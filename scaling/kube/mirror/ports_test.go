package mirror

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func TestTheOlderResourceKeepsAPort(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	owners := Owners([]*v1alpha1.ElasticService{
		resource("web", "younger", 10001, late),
		resource("web", "older", 10001, early),
		resource("web", "same-age-b", 10002, early),
		resource("a", "same-age-c", 10002, early),
		resource("web", "none", 0, early),
		resource("web", "privileged", 80, early),
		resource("web", "no-port", 65536, early),
		resource("web", "alone", 31000, late),
	})
	want := map[int32]scaling.Key{
		10001: {Namespace: "web", Name: "older"}, 10002: {Namespace: "a", Name: "same-age-c"}, 31000: {Namespace: "web", Name: "alone"},
	}
	if fmt.Sprint(owners) != fmt.Sprint(want) {
		t.Errorf("owners are %v, want %v", owners, want)
	}
}

func TestAFreedPortRestsAndIsUsedLast(t *testing.T) {
	l := newLedger(PortRange{20000, 20002}, 20000)
	now := time.Unix(0, 0)
	a, b, c, d := key("a"), key("b"), key("c"), key("d")
	give := func(k scaling.Key, want int32) {
		t.Helper()
		got, err := l.allocate(now, k)
		if err != nil || got != want {
			t.Fatalf("%s gets %d, %v; want %d", k, got, err, want)
		}
		l.observe(now, k, claim{port: got})
	}
	give(a, 20000)
	give(b, 20001)
	l.forget(now, a)
	now = now.Add(rest)
	give(c, 20002) // a's port has rested, but this one was never used
	give(a, 20000)

	_, err := l.allocate(now, d)
	if err == nil || !strings.Contains(err.Error(), "all 3 are taken") {
		t.Errorf("with no port left: %v", err)
	}
	l.forget(now, b)
	now = now.Add(time.Minute)
	l.forget(now, c)
	now = now.Add(rest - time.Minute - time.Second)
	_, err = l.allocate(now, d)
	if err == nil || !strings.Contains(err.Error(), "1 are taken and 2 rest") || !strings.Contains(err.Error(), "free in 1s") {
		t.Errorf("with two ports that rest: %v", err)
	}
	now = now.Add(time.Second)
	give(d, 20001) // it was free longest
}

func TestAPromisedPortIsNobodyElses(t *testing.T) {
	l := newLedger(PortRange{20000, 20001}, 20001)
	now := time.Unix(0, 0)
	first, _ := l.allocate(now, key("a"))
	again, _ := l.allocate(now, key("a"))
	other, _ := l.allocate(now, key("b"))
	if first != 20001 || again != first || other != 20000 {
		t.Errorf("a gets %d, then %d, b gets %d; want 20001 twice and, round the end, 20000", first, again, other)
	}
	// Its status changes for another reason, before ours is seen; and then it is gone. The write may have been seen by clients.
	l.observe(now, key("a"), claim{})
	if again, _ := l.allocate(now, key("a")); again != first {
		t.Errorf("a gets %d, want still %d", again, first)
	}
	l.forget(now, key("a"))
	if port, err := l.allocate(now, key("c")); err == nil {
		t.Errorf("c gets %d at once, want that it rests", port)
	}
}

func TestTheYoungerOfTwoIsToldWhenThePortIsItsOwn(t *testing.T) {
	l := newLedger(PortRange{20000, 29999}, 20000)
	now := time.Unix(0, 0)
	older, younger := claim{20000, time.Unix(1, 0)}, claim{20000, time.Unix(2, 0)}
	l.observe(now, key("b"), younger)
	if others := l.observe(now, key("a"), older); !slices.Equal(others, []scaling.Key{key("b")}) {
		t.Errorf("the older came: told %v, want the younger", others)
	}
	if has(l, key("a")) != 20000 || has(l, key("b")) != 0 {
		t.Error("the port is not the older one's")
	}
	if others := l.forget(now, key("a")); !slices.Equal(others, []scaling.Key{key("b")}) || has(l, key("b")) != 20000 {
		t.Errorf("the older went: told %v, want the younger, with the port", others)
	}
}

// The range may be changed while services serve.
func TestAPortOutsideOfTheRangeIsItsOwnersUntilItHasAnother(t *testing.T) {
	l := newLedger(PortRange{20000, 20001}, 20000)
	now := time.Unix(0, 0)
	is := func(k scaling.Key, want int32, needs bool) {
		t.Helper()
		if got, n := l.port(k); got != want || n != needs {
			t.Errorf("%s has %d, needs another: %t; want %d, %t", k, got, n, want, needs)
		}
	}
	l.observe(now, key("a"), claim{31000, time.Unix(1, 0)})
	l.observe(now, key("b"), claim{31000, time.Unix(2, 0)})
	l.observe(now, key("c"), claim{80, time.Unix(1, 0)})
	is(key("a"), 31000, true)
	is(key("b"), 0, true)
	is(key("c"), 0, true)
	port, err := l.allocate(now, key("a"))
	if err != nil || port != 20000 {
		t.Fatalf("a gets %d, %v", port, err)
	}
	l.observe(now, key("a"), claim{31000, time.Unix(3, 0)}) // the promise stands
	if again, _ := l.allocate(now, key("a")); again != port {
		t.Errorf("a gets %d, then %d", port, again)
	}
	l.forget(now, key("b"))
	l.observe(now, key("a"), claim{port, time.Unix(1, 0)})
	is(key("a"), port, false)
	if left := l.leftFor(now.Add(time.Second), 31000); left != farewell-time.Second {
		t.Errorf("the port that a left is nobody's for %s", left)
	}
	if left := l.leftFor(now.Add(rest), 31000) + l.leftFor(now, port) + l.leftFor(now, 12345); left != 0 {
		t.Errorf("ports that may be somebody's are nobody's for %s", left)
	}
	if others := l.observe(now, key("e"), claim{31000, time.Unix(9, 0)}); !slices.Equal(others, []scaling.Key{key("a")}) || l.leftFor(now, 31000) != 0 {
		t.Errorf("somebody has the port that a left: told %v, want a, whose mirror may lead there", others)
	}
	l.observe(now, key("d"), claim{20001, time.Unix(1, 0)})
	if port, err := l.allocate(now.Add(2*rest), key("b")); err == nil || !strings.Contains(err.Error(), "all 2 are taken") {
		t.Errorf("b gets %d, %v; want that there is none: 31000 is not one of them", port, err)
	}
}

// A model of the ledger that keeps nothing but what happened, against long random histories.
func TestTheLedgerAgreesWithItsModel(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 4)) //nolint:gosec // Histories are to be found again.
		ports := PortRange{20000, 20000 + r.Int32N(12)}
		l := newLedger(ports, ports.From+r.Int32N(ports.size()))
		m := model{ports: ports, claims: map[scaling.Key]claim{}, lastUse: map[int32]time.Time{}, promised: map[scaling.Key]int32{}}
		now := time.Unix(0, 0)
		for step := range 400 {
			now = now.Add(time.Duration(r.IntN(120)) * time.Second)
			k := key(string(rune('a' + r.IntN(14))))
			switch r.IntN(10) {
			case 0: // It is gone.
				l.forget(now, k)
				m.forget(now, k)
			case 1: // Somebody writes whatever to its status.
				c := claim{ports.From - 2 + r.Int32N(ports.size()+4), time.Unix(int64(r.IntN(3)), 0)}
				l.observe(now, k, c)
				m.observe(now, k, c)
			case 2: // What was promised to it is seen.
				if port := m.promised[k]; port != 0 {
					c := claim{port, m.claims[k].created}
					l.observe(now, k, c)
					m.observe(now, k, c)
				}
			default:
				if m.owner(m.claims[k].port) == k {
					break
				}
				port, err := l.allocate(now, k)
				if complaint := m.allocated(now, k, port, err); complaint != "" {
					t.Fatalf("seed %d, step %d: %s gets %d, %v: %s", seed, step, k, port, err, complaint)
				}
			}
			for name := 'a'; name < 'a'+14; name++ {
				k, want := key(string(name)), int32(0)
				if port := m.claims[k].port; m.owner(port) == k {
					want = port
				}
				if got := has(l, k); got != want {
					t.Fatalf("seed %d, step %d: %s has %d, want %d", seed, step, k, got, want)
				}
			}
		}
	}
}

// model finds every answer by looking at all there is.
type model struct {
	ports    PortRange
	claims   map[scaling.Key]claim
	lastUse  map[int32]time.Time // when a port was last left
	promised map[scaling.Key]int32
}

func (m *model) observe(now time.Time, k scaling.Key, c claim) {
	if !m.ports.contain(c.port) {
		c.port = 0
	}
	before, known := m.claims[k]
	if known && before == c {
		return
	}
	m.claims[k] = c
	m.left(now, before.port)
	if promised := m.promised[k]; promised != 0 && c.port != 0 {
		delete(m.promised, k)
		m.left(now, promised)
	}
	delete(m.lastUse, c.port)
}

func (m *model) forget(now time.Time, k scaling.Key) {
	before, promised := m.claims[k].port, m.promised[k]
	delete(m.claims, k)
	delete(m.promised, k)
	m.left(now, before)
	m.left(now, promised)
}

func (m *model) left(now time.Time, port int32) {
	if port != 0 && m.owner(port) == (scaling.Key{}) {
		m.lastUse[port] = now
	}
}

func (m *model) owner(port int32) (owner scaling.Key) {
	for k, c := range m.claims {
		if c.port != port || port == 0 {
			continue
		}
		if owner == (scaling.Key{}) || cmp.Or(c.created.Compare(m.claims[owner].created), cmp.Compare(k.Name, owner.Name)) < 0 {
			owner = k
		}
	}
	return owner
}

// allocated checks what the ledger gave, and returns what is wrong with it.
func (m *model) allocated(now time.Time, k scaling.Key, port int32, err error) string {
	if was := m.promised[k]; was != 0 {
		if port != was {
			return fmt.Sprintf("%d was promised to it", was)
		}
		return ""
	}
	promised := slices.Collect(func(yield func(int32) bool) {
		for _, p := range m.promised {
			if !yield(p) {
				return
			}
		}
	})
	var unused, rested []int32
	var longest time.Time
	for p := m.ports.From; p <= m.ports.To; p++ {
		if m.owner(p) != (scaling.Key{}) || slices.Contains(promised, p) {
			continue
		}
		switch at, used := m.lastUse[p]; {
		case !used:
			unused = append(unused, p)
		case now.Sub(at) >= rest:
			rested = append(rested, p)
			if longest.IsZero() || at.Before(longest) {
				longest = at
			}
		}
	}
	switch {
	case err != nil && len(unused)+len(rested) > 0:
		return fmt.Sprintf("unused are %v, rested %v", unused, rested)
	case err != nil:
		return ""
	case len(unused) > 0 && !slices.Contains(unused, port):
		return fmt.Sprintf("unused are %v", unused)
	case len(unused) == 0 && (!slices.Contains(rested, port) || !m.lastUse[port].Equal(longest)):
		return fmt.Sprintf("rested are %v, one of them since %v", rested, longest)
	}
	m.promised[k] = port
	delete(m.lastUse, port)
	return ""
}

// has is the port that a resource needs not give back.
func has(l *ledger, k scaling.Key) int32 {
	if port, needs := l.port(k); !needs {
		return port
	}
	return 0
}

func key(name string) scaling.Key { return scaling.Key{Namespace: "web", Name: name} }

func resource(namespace, name string, port int32, created time.Time) *v1alpha1.ElasticService {
	return &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(created)},
		Status:     v1alpha1.ElasticServiceStatus{ActivatorPort: port},
	}
}
