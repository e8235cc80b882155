//go:build !race

package route_test

import (
	"net/http"
	"runtime"
	"testing"

	"github.com/dormouse-dev/dormouse/activator/route"
)

func TestMatchAllocatesNothing(t *testing.T) {
	table := build(t, many(1000)...)
	header := http.Header{"X-Tenant": {"blue"}}
	for _, r := range lookups(500) {
		allocs := testing.AllocsPerRun(100, func() {
			if got, _ := table.Match(r.host, r.path, header); got != r.want {
				t.Errorf("%q %q leads to %q, want %q", r.host, r.path, got, r.want)
			}
		})
		if allocs != 0 {
			t.Errorf("%q %q: %v allocations", r.host, r.path, allocs)
		}
	}
}

func TestServiceCostsLittleMemory(t *testing.T) {
	const services = 10_000
	for _, c := range []struct {
		what  string
		rules []route.Rule[string]
		most  int64
	}{
		{"own names", many(services, bare), 1024},
		{"own names in a namespace of its own", many(services, bare, apart), 1536},
		{"own names and four hosts", many(services), 2560},
	} {
		before := heap()
		table, _ := route.Build(c.rules, route.Options{ClusterDomain: clusterDomain})
		perService := (heap() - before) / services
		runtime.KeepAlive(table)
		t.Logf("%s: %d bytes per service", c.what, perService)
		if perService > c.most {
			t.Errorf("%s: %d bytes per service, want at most %d", c.what, perService, c.most)
		}
		runtime.KeepAlive(c.rules)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
