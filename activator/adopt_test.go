package activator_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// server returns a Server on loopback, which does not run yet.
func server(t *testing.T, change func(*activator.Config)) *activator.Server {
	t.Helper()
	counters, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		t.Fatal(err)
	}
	config := activator.Config{
		Listeners: []activator.Listener{{Listener: listen(t)}}, Gates: new(hold.Gates), Metrics: counters, Logger: zap.NewNop(),
		HTTP1Engine: http1Engine(),
	}
	change(&config)
	return activator.New(config)
}

func TestConflictsAreReturnedEachTimeAndLoggedOnce(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	s := server(t, func(c *activator.Config) { c.Logger = zap.New(core) })
	older := &scaling.Service{
		Key: scaling.Key{Namespace: "web", Name: "shop"}, Routes: []scaling.Route{{Hosts: []string{"shop.test"}}},
	}
	younger := &scaling.Service{
		Key: scaling.Key{Namespace: "api", Name: "shop"}, Routes: []scaling.Route{{Hosts: []string{"shop.test"}}},
		Created: time.Unix(1, 0),
	}
	want := []route.Conflict{{Service: younger.Key, Host: "shop.test", Owner: older.Key, Reason: route.Claimed}}
	for range 3 {
		if got := s.Adopt([]*scaling.Service{older, younger}); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	}
	if logs.Len() != 1 {
		t.Errorf("logged: %v", logs.All())
	}
	if got := s.Adopt([]*scaling.Service{younger}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	s.Adopt([]*scaling.Service{older, younger})
	if logs.Len() != 2 {
		t.Errorf("one that has come back was logged %d times", logs.Len()-1)
	}
}

func TestPortsAreOpenedByRun(t *testing.T) {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)) //nolint:gosec // not a secret
	bound := make(chan struct{}, 1)
	s := server(t, func(c *activator.Config) {
		c.PortHost = host
		c.PortsChanged = func() {
			select {
			case bound <- struct{}{}:
			default:
			}
		}
	})
	key := scaling.Key{Namespace: "web", Name: "shop"}
	s.AdoptPorts(map[int32]scaling.Key{10_000: {Namespace: "web", Name: "before"}, 10_001: key})
	s.AdoptPorts(map[int32]scaling.Key{10_000: key})
	address := net.JoinHostPort(host, "10000")
	if _, err := net.Dial("tcp", address); err == nil || s.Bound(10_000) {
		t.Error("the port is open before Run")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for !s.Bound(10_000) {
		<-bound
	}
	if s.Bound(10_001) {
		t.Error("a port is bound that was taken back")
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	// Its service was never adopted.
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusNotFound || !resp.Close {
		t.Errorf("%v %v", resp, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s.Bound(10_000) {
		t.Error("the port is said to be open after Run")
	}
}
