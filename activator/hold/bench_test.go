package hold_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/scaling"
)

func warmGate(endpoints int) *hold.Gate {
	var gates hold.Gates
	gate := gates.Adopt([]*scaling.Service{{Key: shop()}})[0]
	ready := make([]scaling.Endpoint, endpoints)
	for i := range ready {
		ready[i] = endpoint(fmt.Sprint(i), 0)
	}
	gates.Publish(shop(), &scaling.View{Ready: ready})
	return gate
}

// once carries one request over an established connection.
func once(g *hold.Gate, w *hold.Waiter, now time.Time) {
	_, l, _ := g.Acquire(w, now)
	c := l.Conn
	if c == nil {
		c = &conn{}
	}
	g.Answered(&l, false)
	g.Release(&l, c, now)
}

func BenchmarkWarm(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			gate := warmGate(n)
			w := &hold.Waiter{}
			now := time.Now()
			for range 20 * n {
				once(gate, w, now)
			}
			b.ReportAllocs()
			for b.Loop() {
				once(gate, w, now)
			}
		})
	}
}

// dividedGate returns a gate that has half of each capacity, and has lent and borrowed.
func dividedGate() *hold.Gate {
	var gates hold.Gates
	gate := gates.Adopt([]*scaling.Service{{Key: shop()}})[0]
	gates.Share(func(_ string, capacity int) int { return capacity / 2 })
	gates.Publish(shop(), &scaling.View{Ready: []scaling.Endpoint{endpoint("a", 100)}})
	gates.Lent = func(service scaling.Key, _, endpointID string) { gates.Returned(service, endpointID) }
	gates.Claim(shop(), "other", 1)
	gates.Borrowed(shop(), "a")
	w := &hold.Waiter{}
	for range 20 {
		once(gate, w, time.Now())
	}
	return gate
}

func BenchmarkWarmDivided(b *testing.B) {
	gate := dividedGate()
	w := &hold.Waiter{}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		once(gate, w, now)
	}
}

func BenchmarkWarmParallel(b *testing.B) {
	gate := warmGate(3)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &hold.Waiter{}
		now := time.Now()
		for pb.Next() {
			once(gate, w, now)
		}
	})
}

// engine is told of grants as httpx is, by a channel of capacity 1.
type engine struct {
	hold.Waiter
	granted chan balance.Lease
}

func (e *engine) Granted(l balance.Lease) { e.granted <- l }
func (e *engine) Refused(hold.Refusal)    {}

// BenchmarkFlush grants all who wait, in one view: the time that the publisher and the gate's lock are taken.
func BenchmarkFlush(b *testing.B) {
	for _, protocol := range []scaling.Protocol{scaling.ProtocolHTTP1, scaling.ProtocolH2C} {
		for _, waiting := range []int{100, 10_000} {
			b.Run(fmt.Sprintf("%v/waiting=%d", protocol, waiting), func(b *testing.B) {
				ready := endpoint("a", 0)
				ready.Protocol = protocol
				engines := make([]*engine, waiting)
				for i := range engines {
					e := &engine{granted: make(chan balance.Lease, 1)}
					e.Grantee = e
					engines[i] = e
				}
				for b.Loop() {
					b.StopTimer()
					var gates hold.Gates
					gate := gates.Adopt([]*scaling.Service{{Key: shop()}})[0]
					for _, e := range engines {
						gate.Acquire(&e.Waiter, time.Now())
					}
					b.StartTimer()
					gates.Publish(shop(), &scaling.View{Ready: []scaling.Endpoint{ready}})
					for _, e := range engines {
						l := <-e.granted
						gate.Answered(&l, true) // admits the next
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*waiting), "ns/request")
			})
		}
	}
}

// BenchmarkComeBack has all connections refused that were granted together, in the worst order.
func BenchmarkComeBack(b *testing.B) {
	const waiting = 10_000
	engines := make([]*engine, waiting)
	for i := range engines {
		e := &engine{granted: make(chan balance.Lease, 1)}
		e.Grantee = e
		engines[i] = e
	}
	for _, c := range []struct {
		name   string
		stride int
	}{{"in order", 1}, {"in disorder", 7919}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				var gates hold.Gates
				gate := gates.Adopt([]*scaling.Service{{Key: shop()}})[0]
				for _, e := range engines {
					gate.Acquire(&e.Waiter, time.Now())
				}
				gates.Publish(shop(), &scaling.View{Ready: []scaling.Endpoint{shared("a")}})
				leases := make([]balance.Lease, waiting)
				for i, e := range engines {
					leases[i] = <-e.granted
				}
				gates.Fence(shop())
				b.StartTimer()
				for i := range engines {
					i = i * c.stride % waiting
					gate.DialFailed(&leases[i], &engines[i].Waiter, time.Now())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*waiting), "ns/request")
		})
	}
}
