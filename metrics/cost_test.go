package metrics_test

import (
	"fmt"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
)

// The second table of docs/metrics.md is what a service costs, by how it is used.
func TestAServiceCostsWhatTheDocsSay(t *testing.T) {
	kinds := map[string]struct {
		services int // to take the mean of
		use      func(*metrics.Service)
	}{
		"was never used":                                {10_000, func(*metrics.Service) {}},
		"is awake, and answers with 2xx":                {300, serveForLong},
		"was also woken by a request, and put to sleep": {300, func(s *metrics.Service) { serveForLong(s); wake(s) }},
		"has seen everything in the table above":        {300, func(s *metrics.Service) { exercise(s); fill(s) }},
	}
	table := rows(t, regexp.MustCompile("^(was|is|has) "))
	if len(table) != len(kinds) {
		t.Errorf("%s lists %d kinds of service, want %d", docs, len(table), len(kinds))
	}
	for _, cells := range table {
		t.Run(cells[0], func(t *testing.T) {
			kind, ok := kinds[cells[0]]
			if !ok {
				t.Fatal("this test does not know how to be such a service")
			}
			series, bytes := cost(t, kind.services, kind.use)
			if want := number(t, cells[1]); series != want {
				t.Errorf("it has %d series, and is documented to have %d", series, want)
			}
			if most := number(t, cells[2]); bytes > most {
				t.Errorf("it takes %d bytes, and is documented to take at most %d", bytes, most)
			}
			t.Logf("%d series, %d bytes", series, bytes)
		})
	}
}

// serveForLong counts requests whose durations are spread from 0.1 ms to 10 s, more widely than one service's are.
func serveForLong(s *metrics.Service) {
	for i := range 1000 {
		s.Request(200, time.Duration(100+10*i*i)*time.Microsecond)
	}
}

// fill observes durations from 1 ms to 2 minutes in every histogram.
func fill(s *metrics.Service) {
	for d := time.Millisecond; d < 2*time.Minute; d += d / 10 {
		s.Request(200, d)
		for _, outcome := range []metrics.HoldOutcome{
			metrics.HoldGranted, metrics.HoldCancelled, metrics.HoldTimeout, metrics.HoldRefused, metrics.HoldFailed, "lost",
		} {
			s.HoldEnded(outcome, d)
		}
		s.ColdStart(metrics.ColdStartReady, metrics.Phases{Scale: d, Schedule: d, Start: d, Ready: d, Flush: d})
	}
}

// cost returns what one of many services that are used like this costs: series, and bytes of memory.
func cost(t *testing.T, services int, use func(*metrics.Service)) (series, bytes int) {
	t.Helper()
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	names := make([]string, services) // the configuration has them anyhow
	for i := range names {
		names[i] = fmt.Sprint("shop-", i)
	}
	m.ObserveGauges(func(emit func(metrics.ServiceGauges)) {
		emit(metrics.ServiceGauges{Namespace: "web", Name: names[0]})
	})

	before := heap()
	for _, name := range names {
		use(m.Service("web", name))
	}
	series = seriesOf(gather(t, registry), "web", names[0]) // before measuring: a scrape may leave something behind
	bytes = int(heap()-before) / services
	runtime.KeepAlive(m)
	runtime.KeepAlive(names)
	return series, bytes
}

// heap returns the bytes that live objects take.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first has put up for finalizing
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestAWarmRequestIsCountedWithoutAllocating(t *testing.T) {
	for _, label := range []bool{true, false} {
		m, registry := newMetrics(t, metrics.Options{ServiceLabel: label})
		s := m.Service("web", "shop")
		count := func() {
			s.Request(200, 1300*time.Microsecond)
			s.HoldEnded(metrics.HoldGranted, 2*time.Second)
			s.Refused(metrics.RefusedProcessBound)
		}
		count() // The first one makes what is counted on.
		gather(t, registry)
		if n := testing.AllocsPerRun(1000, count); n != 0 {
			t.Errorf("%v allocations with ServiceLabel %t, want none", n, label)
		}
	}
}
