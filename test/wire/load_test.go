package wire

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// The random load is for each form of each engine, as long as the flag says.
var (
	loadFor  = flag.Duration("load", 20*time.Second, "how long the random load lasts")                    //nolint:gochecknoglobals // a flag
	loadSeed = flag.Uint64("load.seed", 0, "what the random load's requests are made of; zero: the time") //nolint:gochecknoglobals // a flag
)

const (
	loadClients   = 40
	loadEndpoints = 3
	loadCapacity  = 10 // so that some wait for a permit
)

// load is a proxy under random requests, whose endpoints come, go and die.
type load struct {
	t      testing.TB
	p      *proxy
	serial atomic.Int64  // of endpoints
	ids    atomic.Uint64 // of requests
	// deaths is odd while endpoints are dying: what is going on then may fail.
	deaths atomic.Int64

	carried, whole, upgraded, broken, faults atomic.Int64
}

// A request that gets an answer which claims to be whole gets its own, whatever its client, its neighbours and its
// endpoint do; one that is not at fault gets it for certain; and nothing is left in the end.
func TestRandomLoadMixesNothingUpAndLeavesNothingBehind(t *testing.T) {
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			leaves := leftovers(t)
			l := &load{t: t}
			l.p = newProxy(t, form, func(_ *activator.Config, s *scaling.Service) {
				s.Hold.Timeout = 10 * time.Second
				s.Timeouts = scaling.Timeouts{Dial: time.Second, ResponseHeader: 5 * time.Second, Idle: 5 * time.Second}
			})
			seed := *loadSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano()) //nolint:gosec // any number
			}
			t.Logf("-load.seed=%d", seed)
			l.run(*loadFor, seed)
			t.Logf("%d requests reached endpoints; %d answers were whole, %d broken or refused, %d upgrades", l.carried.Load(), l.whole.Load(), l.broken.Load(), l.upgraded.Load())
			if whole, broken := l.whole.Load(), l.broken.Load(); whole < 4*broken || l.upgraded.Load() == 0 {
				t.Error("that is too few")
			}
			l.p.stop()
			if err := l.p.awaitEnd(); err != nil {
				t.Error(err)
			}
			leaves()
		})
	}
}

// run loads the proxy and then sees what is left of it.
func (l *load) run(d time.Duration, seed uint64) {
	endpoints := make([]*loadEndpoint, loadEndpoints)
	for i := range endpoints {
		endpoints[i] = l.newEndpoint()
	}
	l.publish(endpoints)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var all sync.WaitGroup
	for i := range uint64(loadClients) {
		all.Go(func() {
			c := &loadClient{load: l, rand: rand.New(rand.NewPCG(seed, i))}
			c.run(ctx)
		})
	}
	all.Go(func() { l.multiplexed(ctx) })
	l.weather(ctx, rand.New(rand.NewPCG(seed, loadClients)), endpoints)
	l.publish(endpoints)
	all.Wait()

	l.p.awaitIdle()
	if n, bytes := l.p.gates.Budget.Held(); n != 0 || bytes != 0 {
		l.t.Errorf("%d requests of %d bytes count as held in the end", n, bytes)
	}
	eventually(l.t, "clients' connections to be closed", func() bool {
		open, _ := l.p.server.Connections()
		return open == 0
	})
	l.p.fills(loadEndpoints, loadCapacity)
	l.p.gates.CloseIdle()
	eventually(l.t, "connections to endpoints to be closed", func() bool {
		open := 0
		for _, e := range endpoints {
			open += e.open()
		}
		return open == 0
	})
	for _, e := range endpoints {
		e.die()
	}
}

// weather takes endpoints away, brings them back and kills some, until ctx ends.
func (l *load) weather(ctx context.Context, r *rand.Rand, endpoints []*loadEndpoint) {
	within := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.Int64N(int64(d)))):
		}
	}
	for ctx.Err() == nil {
		within(60 * time.Millisecond)
		switch r.IntN(8) {
		case 0, 1, 2:
			l.publish(nil)
			within(20 * time.Millisecond)
		case 3, 4:
			l.publish(endpoints[:1+r.IntN(loadEndpoints-1)])
			within(20 * time.Millisecond)
		case 5:
			l.deaths.Add(1)
			i := r.IntN(loadEndpoints)
			announced := r.IntN(2) == 0
			dying := endpoints[i]
			endpoints[i] = l.newEndpoint()
			if announced {
				l.publish(endpoints)
				within(5 * time.Millisecond)
			}
			dying.die()
			within(5 * time.Millisecond)
			l.publish(endpoints)
			l.deaths.Add(1)
		}
		l.publish(endpoints)
	}
}

func (l *load) publish(endpoints []*loadEndpoint) {
	ready := make([]scaling.Endpoint, len(endpoints))
	for i, e := range endpoints {
		ready[i] = e.Endpoint
	}
	l.p.publish(ready...)
}

// multiplexed is a client of HTTP/2, next to the others.
func (l *load) multiplexed(ctx context.Context) {
	c := l.p.client(h2c)
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		p := plan{id: l.ids.Add(1), method: http.MethodGet, send: -1, status: 200, shape: shapeChunked, size: 5000, trouble: troubleNone}
		began := l.calm()
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), p.method, fmt.Sprintf("http://%s/%d?%s", l.p.addr, p.id, p.trouble), http.NoBody)
		if err != nil {
			l.fault("%v", err)
			return
		}
		r.Host = host
		r.Header.Set("X-Plan", fmt.Sprint(p.status, p.shape, " ", p.size, " ", p.trouble))
		resp, err := c.Do(r)
		whole := false
		if err == nil {
			whole, err = same(resp.Body, p.down())
			_ = resp.Body.Close()
		}
		if (err != nil || !whole) && !l.disturbed(began) {
			l.fault("over HTTP/2: %v %v", resp, err)
		}
	}
}

// calm returns what disturbed compares with.
func (l *load) calm() int64 { return l.deaths.Load() }

// disturbed reports whether any endpoint has died since.
func (l *load) disturbed(began int64) bool { return began%2 == 1 || l.deaths.Load() != began }

// fault fails the test, and says why for the first few.
func (l *load) fault(format string, args ...any) {
	if l.faults.Add(1) <= 20 {
		l.t.Errorf(format, args...)
	}
}

// fills publishes endpoints of a capacity and fails the test unless they have room for as many requests, and no more.
func (p *proxy) fills(endpoints, capacity int) {
	p.t.Helper()
	patient := *p.service
	patient.Hold.Timeout = 10 * time.Second
	p.server.Adopt([]*scaling.Service{&patient})
	all := endpoints * capacity
	var inside atomic.Int64
	full := make(chan struct{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		select {
		case <-full:
		case <-r.Context().Done():
		}
	})
	var servers []*httptest.Server
	defer func() {
		for _, s := range servers {
			s.Close()
		}
	}()
	ready := make([]scaling.Endpoint, endpoints)
	for i := range ready {
		s := httptest.NewServer(handler)
		servers = append(servers, s)
		ready[i] = p.endpoint(s.URL, scaling.ProtocolHTTP1)
		ready[i].Capacity = capacity
	}
	p.publish(ready...)
	c := p.client(http1)
	defer c.CloseIdleConnections()
	var requests sync.WaitGroup
	for range all + 1 {
		r := p.request(http.MethodGet, "/", http.NoBody)
		requests.Go(func() {
			resp, err := c.Do(r)
			if err != nil {
				p.t.Error(err)
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				p.t.Error(resp.Status, err)
			}
		})
	}
	eventually(p.t, fmt.Sprintf("%d requests to be in flight, and one held", all), func() bool {
		a := p.gates.Activity(key)
		return inside.Load() == int64(all) && a.InFlight == all && a.Held == 1
	})
	close(full)
	requests.Wait()
	p.awaitIdle()
}
