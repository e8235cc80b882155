package stream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Streams are cut, swallowed and replaced, and processes restarted, at random. Then it calms, and all see each other as
// they are. The recorders check the order of events all the time.
func TestAllFindEachOtherAfterTrouble(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	ids := []string{"a", "b", "c", "d"}
	nodes := make([]*node, len(ids))
	addresses := make([]atomic.Pointer[netip.AddrPort], len(ids))
	proxies := make([][]*proxy, len(ids)) // from, to
	process := 0
	start := func(i int) {
		process++
		nodes[i] = newNode(t, nodeOptions{id: ids[i], incarnation: fmt.Sprint(process), authority: ca})
		addresses[i].Store(&nodes[i].address)
		var members []Member
		for j, id := range ids {
			if j != i {
				members = append(members, Member{ID: id, Addresses: []netip.AddrPort{proxies[i][j].address}})
			}
		}
		nodes[i].mesh.Set(members)
	}
	for i := range ids {
		proxies[i] = make([]*proxy, len(ids))
		for j := range ids {
			if i != j {
				proxies[i][j] = newProxy(t, func() netip.AddrPort { return *addresses[j].Load() })
			}
		}
	}
	for i := range ids {
		addresses[i].Store(&netip.AddrPort{})
	}
	for i := range ids {
		start(i)
	}
	steps := time.NewTicker(20 * time.Millisecond)
	defer steps.Stop()
	restarts := 0
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-steps.C {
		i, j := random.IntN(len(ids)), random.IntN(len(ids))
		if i == j {
			continue
		}
		switch p := proxies[i][j]; random.IntN(10) {
		case 0:
			nodes[i].stop()
			start(i)
			restarts++
		case 1:
			p.swallow()
		case 2, 3:
			p.heal()
		case 4, 5, 6:
			p.cut()
		default:
			if link := nodes[i].handler.link(ids[j]); link != nil {
				if random.IntN(2) == 0 {
					link.Close()
				} else {
					_ = link.Send([]byte("{}")) // it may just have ended
				}
			}
		}
	}
	for i := range ids {
		for j := range ids {
			if i != j {
				proxies[i][j].heal()
			}
		}
	}
	eventually(t, 10*time.Second, "everybody sees everybody as he is", func() bool {
		for i := range ids {
			for j := range ids {
				if i != j && nodes[i].handler.incarnation(ids[j]) != nodes[j].mesh.Own().Incarnation {
					return false
				}
			}
		}
		return true
	})
	streams := 0
	for i := range ids {
		for j := range ids {
			begun, ended := nodes[i].handler.count(ids[j])
			if streams += begun; i != j && begun-ended != 1 {
				t.Errorf("%s: %d streams with %s began and %d ended", ids[i], begun, ids[j], ended)
			}
		}
	}
	t.Logf("%d restarts; the last processes had %d ends of streams", restarts, streams)
}
