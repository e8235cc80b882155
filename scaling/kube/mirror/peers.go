package mirror

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
)

const (
	dialTimeout = time.Second
	dialsAtOnce = 8 // to one activator
	firstRedial = 20 * time.Millisecond
	lastRedial  = 10 * time.Second
	patientFor  = 4 // attempts, 0.3 s: a port that was just given has to be opened first
)

// peers finds out which activators listen at which services' ports, by connecting to them. Each activator has a queue
// and workers of its own, so that one that cannot be reached delays nobody's news of the others.
type peers struct {
	dial func(ctx context.Context, address netip.AddrPort) error
	news func(key scaling.Key) // called when a service's port was found open, or closed for too long; it does not block

	workers sync.WaitGroup
	mu      sync.Mutex
	all     map[place]*peer // guarded by mu
}

// place is one address of one pod. A pod that is made anew at the same address is another place.
type place struct {
	pod     types.UID
	address netip.Addr
}

// peer is what is known of one place. Its maps are guarded by peers.mu.
type peer struct {
	queue  workqueue.TypedRateLimitingInterface[scaling.Key]
	cancel context.CancelFunc
	wanted map[scaling.Key]int32 // ports that somebody asked for
	open   map[scaling.Key]int32 // ports that were open
	failed map[scaling.Key]error // why a wanted port is closed, once that is worth telling
}

func newPeers(dial func(context.Context, netip.AddrPort) error, news func(scaling.Key)) *peers {
	if dial == nil {
		dial = connect
	}
	return &peers{dial: dial, news: news, all: make(map[place]*peer)}
}

// update begins with the activators that have become ready, and forgets those that are no longer, with all that was
// known of them: a process that was started again has to open its ports again. Its work ends with ctx.
func (p *peers) update(ctx context.Context, all []members.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	serving := make(map[place]struct{}, len(all))
	for _, m := range all {
		if !serves(m) {
			continue
		}
		for _, address := range m.Addresses {
			at := place{m.UID, address}
			serving[at] = struct{}{}
			if p.all[at] == nil && ctx.Err() == nil {
				p.all[at] = p.begin(ctx, at)
			}
		}
	}
	for at, one := range p.all {
		if _, ok := serving[at]; !ok {
			one.end()
			delete(p.all, at)
		}
	}
}

// listens tells whether a place was seen listening at the port that is key's. If not it is asked, and news is called
// when it does.
func (p *peers) listens(at place, key scaling.Key, port int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.all[at]
	switch {
	case one == nil:
		return false
	case one.open[key] == port:
		return true
	case one.wanted[key] != port:
		delete(one.failed, key)
		delete(one.open, key) // at another port; it may be closed when that is asked for again
		one.wanted[key] = port
		one.queue.Forget(key)
		one.queue.Add(key)
	}
	return false
}

// failure returns why a place does not listen at key's port, or nil where that is not worth telling yet.
func (p *peers) failure(at place, key scaling.Key) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.all[at]; one != nil {
		return one.failed[key]
	}
	return nil
}

// forget drops what is known of a service's port, everywhere.
func (p *peers) forget(key scaling.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		delete(one.wanted, key)
		delete(one.open, key)
		delete(one.failed, key)
	}
}

// end waits until nothing of it runs any more. The context of every update has ended.
func (p *peers) end() {
	p.update(context.Background(), nil)
	p.workers.Wait()
}

func (p *peers) begin(ctx context.Context, at place) *peer {
	ctx, cancel := context.WithCancel(ctx)
	one := &peer{
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[scaling.Key](firstRedial, lastRedial)),
		cancel: cancel,
		wanted: make(map[scaling.Key]int32),
		open:   make(map[scaling.Key]int32),
		failed: make(map[scaling.Key]error),
	}
	for range dialsAtOnce {
		p.workers.Go(func() {
			for {
				key, ended := one.queue.Get()
				if ended {
					return
				}
				p.ask(ctx, one, at, key)
				one.queue.Done(key)
			}
		})
	}
	return one
}

// ask connects to a service's port once.
func (p *peers) ask(ctx context.Context, one *peer, at place, key scaling.Key) {
	p.mu.Lock()
	port := one.wanted[key]
	p.mu.Unlock()
	if port == 0 || ctx.Err() != nil {
		one.queue.Forget(key)
		return
	}
	err := p.dial(ctx, netip.AddrPortFrom(at.address, uint16(port)))

	p.mu.Lock()
	current := one.wanted[key] == port // otherwise whoever changed it has queued it
	tell := current
	switch {
	case !current:
	case err == nil:
		one.open[key] = port
		delete(one.wanted, key)
		delete(one.failed, key)
		one.queue.Forget(key)
	default:
		one.queue.AddRateLimited(key)
		if tell = one.queue.NumRequeues(key) == patientFor; tell {
			one.failed[key] = err
		}
	}
	p.mu.Unlock()
	if tell && ctx.Err() == nil {
		p.news(key)
	}
}

func (one *peer) end() {
	one.cancel()
	one.queue.ShutDown()
}

// serves tells whether requests may be sent to an activator.
func serves(m members.Member) bool { return m.Ready && !m.Terminating }

// connect opens a TCP connection and closes it.
func connect(ctx context.Context, address netip.AddrPort) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("connect to an activator: %w", err)
	}
	return conn.Close()
}
