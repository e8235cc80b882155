package mirror

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
)

func TestAPortIsAskedForUntilItIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var open atomic.Bool
		var asked []time.Duration
		var news []bool // whether the port was said to be open
		a := ready("a", "10.0.0.1")
		at := place{a.UID, a.Addresses[0]}
		var p *peers
		p = newPeers(func(_ context.Context, address netip.AddrPort) error {
			if address.String() != "10.0.0.1:20000" {
				t.Errorf("asked %s", address)
			}
			asked = append(asked, time.Since(began))
			if !open.Load() {
				return errors.New("refused")
			}
			return nil
		}, func(k scaling.Key) { news = append(news, p.listens(at, k, 20000)) })
		p.update(t.Context(), []members.Member{a})
		if p.listens(at, key("shop"), 20000) {
			t.Error("it listens before it was asked")
		}
		time.Sleep(time.Minute) //nolint:forbidigo // The bubble's clock.
		synctest.Wait()
		if first := asked[:5]; !slices.IsSorted(first) || first[1] > 30*time.Millisecond || first[4] > 400*time.Millisecond {
			t.Errorf("asked at %v, want early and often at first", first)
		}
		if len(asked) > 16 {
			t.Errorf("asked %d times in a minute, want less and less", len(asked))
		}
		if len(news) != 1 || news[0] || p.failure(at, key("shop")) == nil {
			t.Errorf("told %v, and why: %v; want once that it is closed, and why", news, p.failure(at, key("shop")))
		}
		open.Store(true)
		time.Sleep(lastRedial) //nolint:forbidigo // The bubble's clock.
		synctest.Wait()
		if len(news) != 2 || !news[1] || p.failure(at, key("shop")) != nil {
			t.Errorf("told %v, want that it is open", news)
		}

		// With another port, or as another process, it has to be asked again.
		if p.listens(at, key("shop"), 20001) {
			t.Error("it listens at a port that was not asked for")
		}
		p.forget(key("shop"))
		if p.listens(at, key("shop"), 20000) {
			t.Error("what was forgotten is known")
		}
		synctest.Wait()
		a.Ready = false
		p.update(t.Context(), []members.Member{a})
		a.Ready = true
		p.update(t.Context(), []members.Member{a})
		if p.listens(at, key("shop"), 20000) {
			t.Error("a process that was started again is known to listen")
		}
		p.forget(key("shop"))
		p.end()
	})
}

func TestAnActivatorThatCannotBeReachedDelaysNoNewsOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a, b := ready("a", "10.0.0.1"), ready("b", "fd00::2")
		var open atomic.Int32
		p := newPeers(func(ctx context.Context, address netip.AddrPort) error {
			if address.Addr().Is4() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, func(scaling.Key) { open.Add(1) })
		p.update(t.Context(), []members.Member{a, b})
		for i := range 1000 {
			for _, m := range []members.Member{a, b} {
				p.listens(place{m.UID, m.Addresses[0]}, key(strconv.Itoa(i)), 20000)
			}
		}
		synctest.Wait()
		if open.Load() != 1000 || time.Since(began) != 0 {
			t.Errorf("%d of 1000 are known after %s, want all at once", open.Load(), time.Since(began))
		}
		p.end() // it ends what hangs
	})
}

func TestListeningIsTakingAConnection(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(l.Addr().String())
	if err := connect(t.Context(), address); err != nil {
		t.Errorf("connect to a listener: %v", err)
	}
	l.Close()
	if err := connect(t.Context(), address); err == nil {
		t.Error("nobody listens, and it was taken for open")
	}
}

func ready(name, address string) members.Member {
	return members.Member{Name: name, UID: types.UID(name), Ready: true, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
}
