package service_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

var key = scaling.Key{Namespace: "web", Name: "shop"} //nolint:gochecknoglobals // a constant, were it not a struct

// newService returns a service with one endpoint, and its gate's Gates.
func newService(t *testing.T) (*service.Service, *hold.Gates) {
	t.Helper()
	gates := new(hold.Gates)
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gate := gates.Adopt([]*scaling.Service{{Key: key, Hold: scaling.Hold{Timeout: time.Second}}})[0]
	gates.Publish(key, &scaling.View{Ready: []scaling.Endpoint{{ID: "a", Address: "127.0.0.1:1", Capacity: 1}}})
	return service.New(gate, counters.Service("web", "shop")), gates
}

func TestAGrantGivesItsLeaseBackOnce(t *testing.T) {
	s, gates := newService(t)
	outcome, lease, _ := s.Gate.Acquire(&hold.Waiter{}, time.Now())
	if outcome != hold.Leased || gates.Activity(key).InFlight != 1 {
		t.Fatal("no lease to be had")
	}
	g := &service.Grant{Service: s, Lease: lease}
	for range 2 {
		g.Release()
		if n := gates.Activity(key).InFlight; n != 0 {
			t.Fatalf("%d leases are held", n)
		}
	}
	new(service.Grant).Release() // has nothing to give back
}

func TestHoldsThatTimeOutAreLoggedOnceUntilOneDoesNot(t *testing.T) {
	s, _ := newService(t)
	core, logs := observer.New(zap.WarnLevel)
	for _, inTime := range []bool{false, false, true, false} {
		if inTime {
			s.InTime()
		} else {
			s.TellLate(zap.New(core), s.WaitedFor())
		}
	}
	if logs.Len() != 2 {
		t.Errorf("logged %v", logs.All())
	}
}

func TestADestinationThatWasLeftIsServedOnceMore(t *testing.T) {
	s, _ := newService(t)
	var d service.Destination
	if d.Service() != nil || !d.Over() {
		t.Error("the zero value leads somewhere")
	}
	d.Adopt(s)
	if d.Service() != s || d.Over() {
		t.Error("it does not lead to what it has adopted")
	}
	d.Leave()
	if d.Service() != s || !d.Over() {
		t.Error("who is still there is not served, or not told to go")
	}
}

func TestServerTimingTellsWhatTheHoldWasFor(t *testing.T) {
	wake := &scaling.Wake{Scale: 12 * time.Millisecond, Schedule: 0, Start: 1500 * time.Microsecond, Ready: time.Minute}
	for want, wake := range map[string]*scaling.Wake{
		"x: hold;dur=2000.0": nil,
		"x: hold;dur=2000.0, scale;dur=12.0, schedule;dur=0.0, start;dur=1.5, ready;dur=60000.0": wake,
	} {
		if got := string(service.AppendTiming([]byte("x: "), wake, 2*time.Second)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
