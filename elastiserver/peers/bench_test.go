package peers

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// One iteration is a second of an activator that has two peers and 1,000 targets: it looks at its own, tells both what has
// changed, and hears the same of both. 10 ms would be a percent of a core.
func BenchmarkASecondOfActivity(b *testing.B) {
	for _, c := range []struct {
		name    string
		changes int
	}{{"nothing changes", 0}, {"a tenth changes", 100}, {"all change", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			s := &manyTargets{activities: make(map[scaling.Target]scaling.Activity)}
			targets := make([]scaling.Target, 1000)
			for i := range targets {
				targets[i] = scaling.Target{Namespace: "namespace", Kind: "Deployment.apps", Name: fmt.Sprintf("service-%d", i)}
				s.activities[targets[i]] = scaling.Activity{Last: time.Now(), Carried: true}
			}
			m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
			if err != nil {
				b.Fatal(err)
			}
			f := New(Options{ID: "a/1", Logger: zap.NewNop(), Scaler: s, Metrics: m})
			wires := map[PeerID]*wire{"b/1": {}, "c/1": {}}
			for id, w := range wires {
				f.Connected(id, w)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				for _, t := range targets[:c.changes] {
					s.activities[t] = scaling.Activity{InFlight: n % 2, Last: time.Now(), Carried: true}
				}
				f.speak()
				for id, w := range wires {
					w.deliver(b, f, id)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e7, "%core")
		})
	}
}

// An activator with many idle services does nothing for them but look.
func TestLookingAtTargetsThatDoNotChangeAllocatesNothing(t *testing.T) {
	s := &manyTargets{activities: make(map[scaling.Target]scaling.Activity)}
	for i := range 100 {
		s.activities[scaling.Target{Name: fmt.Sprint(i)}] = scaling.Activity{Last: time.Now()}
	}
	var spoke spoken
	spoke.init(nil)
	spoke.refresh(s.Activities)
	if len(spoke.changes) != 100 {
		t.Fatalf("there are %d changes", len(spoke.changes))
	}
	look := s.Activities
	if n := testing.AllocsPerRun(10, func() { spoke.refresh(look) }); n > 0 || len(spoke.changes) > 0 {
		t.Errorf("%v allocations and %d changes", n, len(spoke.changes))
	}
}

// wire carries what is sent back to the sender, as lines.
type wire struct{ lines [][]byte }

func (w *wire) Send(m Message) error {
	line, err := m.Marshal()
	if m.Activity != nil {
		w.lines = append(w.lines, line)
	}
	return err
}

func (w *wire) deliver(b *testing.B, f *Fleet, from PeerID) {
	b.Helper()
	for _, line := range w.lines {
		m, err := Unmarshal(line)
		if err != nil {
			b.Fatal(err)
		}
		f.Received(from, m)
	}
	w.lines = w.lines[:0]
}

// manyTargets is a Scaler that has an activity and nothing else.
type manyTargets struct {
	Scaler
	activities map[scaling.Target]scaling.Activity
}

func (*manyTargets) Holds() []scaling.Held                  { return nil }
func (*manyTargets) Condemned() map[scaling.Target][]string { return nil }
func (s *manyTargets) Activities(f func(scaling.Target, scaling.Activity)) {
	for t, a := range s.activities {
		f(t, a)
	}
}
