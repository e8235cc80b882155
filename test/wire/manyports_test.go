package wire

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

const manyPorts = 1000

// many returns the owners of n ports: services of a name each, whose endpoint is one and the same.
func (p *proxy) many(n int) (services []*scaling.Service, owners map[int32]scaling.Key) {
	owners = make(map[int32]scaling.Key, n)
	for i := range n {
		s := *p.service
		s.Key = scaling.Key{Namespace: "many", Name: fmt.Sprint("service-", i)}
		services = append(services, &s)
		owners[firstPort+int32(i)] = s.Key //nolint:gosec // a small number
	}
	return services, owners
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestAThousandPortsOpenAndCloseUnderTraffic(t *testing.T) {
	host, change := ownPorts()
	p := newProxy(t, change)
	s := p.serve(echo)
	services, owners := p.many(manyPorts)
	p.server.Adopt(append(services, p.service))
	for _, service := range services {
		p.gates.Publish(service.Key, &scaling.View{Ready: []scaling.Endpoint{p.endpoint(s.URL, scaling.ProtocolHTTP1)}})
	}
	p.serve(echo)
	// Half of the ports stay, the others come and go.
	stay := make(map[int32]scaling.Key)
	for port, owner := range owners {
		if port%2 == 0 {
			stay[port] = owner
		}
	}
	p.server.AdoptPorts(stay)
	for port := range stay {
		p.awaitBound(port)
	}
	goroutines, files := runtime.NumGoroutine(), descriptors(t)

	var traffic sync.WaitGroup
	var served atomic.Int64
	over := make(chan struct{})
	for i := range 8 {
		c := p.client(map[bool]func(*http.Protocols){true: http1, false: h2c}[i%2 == 0])
		traffic.Go(func() {
			defer c.CloseIdleConnections()
			for n := range int32(1 << 30) {
				port := firstPort + n*2%40 // each connection is used again
				r := p.request(http.MethodGet, "/", nil)
				r.URL.Host = at(host, port)
				resp, err := c.Do(r)
				if err != nil {
					t.Errorf("port %d: %v", port, err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("port %d: %s", port, resp.Status)
				}
				served.Add(1)
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	for range 5 {
		began := time.Now()
		p.server.AdoptPorts(owners)
		for port := range owners {
			p.awaitBound(port)
		}
		opened := time.Since(began)
		p.server.AdoptPorts(stay)
		for port := range owners {
			if _, stays := stay[port]; stays != p.server.Bound(port) {
				t.Errorf("port %d is bound: %t", port, !stays)
			}
		}
		t.Logf("%d ports opened in %v", manyPorts/2, opened)
	}
	close(over)
	traffic.Wait()
	t.Logf("%d requests", served.Load())
	p.awaitClosed(at(host, firstPort+1))
	eventually(t, "the ports' goroutines to end", func() bool { return runtime.NumGoroutine() < goroutines+manyPorts/4 })
	eventually(t, "the ports' descriptors to be closed", func() bool { return descriptors(t) < files+manyPorts/2 })
}

func TestAPortCostsLittle(t *testing.T) {
	_, change := ownPorts()
	p := newProxy(t, change)
	services, owners := p.many(manyPorts)
	p.server.Adopt(services)
	eventually(t, "it to be ready", p.server.Ready)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	_, most := p.server.Connections()
	before := memory()

	p.server.AdoptPorts(owners)
	for port := range owners {
		p.awaitBound(port)
	}
	each := (memory() - before) / manyPorts
	t.Logf("%d bytes, %.2f goroutines, %.2f descriptors", each,
		float64(runtime.NumGoroutine()-goroutines)/manyPorts, float64(descriptors(t)-files)/manyPorts)
	if each > maxPort {
		t.Errorf("a port costs %d bytes, want at most %d", each, maxPort)
	}
	if n := runtime.NumGoroutine() - goroutines; n > manyPorts+10 {
		t.Errorf("%d ports have %d goroutines", manyPorts, n)
	}
	if n := descriptors(t) - files; n > manyPorts+10 {
		t.Errorf("%d ports have %d descriptors", manyPorts, n)
	}
	if _, left := p.server.Connections(); left > most-manyPorts*4/10 {
		t.Errorf("%d connections may be open beside the ports, and %d without them", left, most)
	}
	runtime.KeepAlive(services)
}

// maxPort is how much memory a service's own port may take, stack included, in bytes: it is 4.3 KiB, and 8 under the race
// detector, whose stacks are larger.
const maxPort = 12 << 10

// memory returns what is in use, heap and stacks.
func memory() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse) //nolint:gosec // far from the bounds
}

func TestABoundOnConnectionsThatIsConfiguredIsKeptBesidePorts(t *testing.T) {
	_, change := ownPorts()
	p := newProxy(t, change, func(c *activator.Config, _ *scaling.Service) { c.MaxConnections = 10 })
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	if _, most := p.server.Connections(); most != 10 {
		t.Errorf("%d", most)
	}
}
