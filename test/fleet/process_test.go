package fleet

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/elastiserver"
	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// pod is where processes run, one after the other. The cluster lists it until it is gone.
type pod struct {
	name    string
	uid     string
	starts  int  // of containers so far; the world's first goroutine's
	running bool // guarded by the cluster's lock
	lost    bool // with its machine: nobody is told of anything; written before its process dies
}

// freshFor is for how long after its start a process's watch lags little: what it reads first is not from a cache. freshLag is how
// much it lags then, at most.
const freshFor, freshLag = 12 * time.Second, 500 * time.Millisecond

// process is one run of an activator: the real parts, and what the world does to them.
type process struct {
	w    *world
	pod  *pod
	name string
	id   peers.PeerID
	dice *dice

	rate   float64       // of its clock
	offset time.Duration // of its clock
	leads  bool          // as it believes; its campaign's

	leaving bool // the world's first goroutine's

	gates   *hold.Gates
	byKey   map[scaling.Key]*hold.Gate   // not changed any more
	looked  map[scaling.Target]time.Time // when it has read which endpoints there are; guarded by the cluster's lock
	handler *scaling.ScaleHandler
	server  *elastiserver.Server
	fleet   *peers.Fleet

	fencing fencing

	began   time.Time
	died    chan struct{} // closed when nothing of it may happen any more
	cut     atomic.Bool   // from the API server
	stall   atomic.Int64  // until when its watch sees nothing new, in ns of the story
	slow    time.Duration // bounds the lag of its watch
	running sync.WaitGroup
	calls   sync.WaitGroup

	stop         context.CancelFunc // of all that runs
	campaigning  context.CancelFunc
	campaignOver chan struct{}
}

// start has a pod run a process.
func (w *world) start(pod *pod) *process {
	w.t.Helper()
	pod.starts++
	incarnation := strconv.Itoa(pod.starts)
	p := &process{
		w: w, pod: pod, name: pod.name + "." + incarnation, id: peers.NewPeerID(pod.uid, incarnation),
		looked: make(map[scaling.Target]time.Time),
		began:  time.Now(), died: make(chan struct{}), campaignOver: make(chan struct{}),
	}
	p.dice = newDice(w.seed, p.name)
	p.rate = 1 + 0.045*(2*float64(p.dice.below(1001))/1000-1)
	p.offset = p.dice.upTo(1000 * time.Hour)
	p.slow = one(p.dice, time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, time.Second, 4*time.Second)
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{ServiceLabel: true})
	if err != nil {
		w.t.Fatal(err)
	}
	logger := zap.New(zapcore.NewCore(
		zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m", NameKey: "n"}),
		zapcore.AddSync(logWriter{w.story, p.name}), zap.DebugLevel))
	p.gates = &hold.Gates{}
	p.handler = scaling.NewScaleHandler(logger, &backend{p}, &ledger{p}, m)
	p.server = elastiserver.New(logger, p.handler, 5*time.Second, m)
	p.fleet = p.newFleet(logger, m)
	p.handler.Join(p.fleet)
	p.gates.Notify = p.server.Notify
	p.gates.Fenced = p.arrived
	p.gates.Flushed = p.handler.Flushed
	p.gates.Shut()

	p.fencing.up, p.fencing.waiting = make(map[scaling.Key]time.Time), make(map[scaling.Key]time.Time)
	p.byKey = make(map[scaling.Key]*hold.Gate)
	for i, gate := range p.gates.Adopt(w.services) {
		p.byKey[w.services[i].Key] = gate
	}
	p.handler.Adopt(w.services)
	var ctx, campaign context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	campaign, p.campaigning = context.WithCancel(ctx)
	run := func(what string, f func(context.Context) error) {
		p.running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				w.story.fail("%s: %s: %v", p.name, what, err)
			}
		})
	}
	w.cluster.mu.Lock()
	pod.running = true
	w.cluster.mu.Unlock()
	w.story.note("%s starts, its clock at %.3f", p.name, p.rate)
	run("the scale handler", p.handler.Run)
	<-p.handler.Started()
	run("the server", p.server.Run)
	run("the fleet", p.fleet.Run)
	run("the members", p.follow)
	p.running.Go(func() {
		defer close(p.campaignOver)
		p.campaign(campaign)
	})
	for _, other := range w.processes {
		p.running.Go(func() { w.network.join(ctx, p, other) })
	}
	w.processesMu.Lock()
	w.processes = append(w.processes, p)
	w.processesMu.Unlock()
	return p
}

// kill ends a process at once: what it has sent is sent, and its clients' connections are cut.
func (p *process) kill() {
	c := p.w.cluster
	c.mu.Lock()
	if p.isDead() {
		c.mu.Unlock()
		return
	}
	close(p.died)
	p.pod.running = false
	for _, w := range c.workloads {
		for _, r := range w.replicas {
			for call := range r.serving {
				if call.process == p {
					delete(r.serving, call)
				}
			}
		}
	}
	c.mu.Unlock()
	p.w.story.note("%s has died", p.name)
	p.stop()
}

// leave ends a process as SIGTERM does, once its clients are served. It gives its lease away when its fences have ended.
func (p *process) leave() {
	p.w.story.note("%s is stopped", p.name)
	p.calls.Wait()
	p.campaigning()
	<-p.campaignOver
	if err := p.resign(); err != nil {
		p.w.story.note("%s keeps the lease: %v", p.name, err)
	} else {
		p.w.cluster.release(p)
	}
	p.kill()
}

func (p *process) isDead() bool {
	select {
	case <-p.died:
		return true
	default:
		return false
	}
}

func (p *process) isCut() bool { return p.cut.Load() && !p.w.isCalm() }

// clock is CLOCK_BOOTTIME of its machine.
func (p *process) clock() time.Duration {
	return p.offset + time.Duration(p.rate*float64(time.Since(p.w.story.start)))
}

// lag is how old the next thing is that its watch sees. A process that starts reads what is so, and nothing older.
func (p *process) lag() time.Duration {
	if p.w.isCalm() {
		return time.Millisecond
	}
	if time.Since(p.began) < freshFor {
		return p.dice.upTo(min(p.slow, freshLag))
	}
	return max(p.dice.upTo(p.slow), time.Duration(p.stall.Load())-time.Since(p.w.story.start))
}

// blind reports whether a process that has started since a write was sent, and is alone, cannot know yet what came of it at a
// time: it waits for the write to land, and no longer.
func (p *process) blind(by lowering, at time.Time) bool {
	return p.began.After(by.sent) && time.Since(at) <= freshLag
}

func (p *process) gate(key scaling.Key) *hold.Gate { return p.byKey[key] }

var _ scaling.Gates = (*ledger)(nil)

// ledger notes what a process's gates are told.
type ledger struct{ *process }

func (l *ledger) Publish(service scaling.Key, view *scaling.View) {
	if l.isDead() {
		return
	}
	var ready []string
	for _, e := range view.Ready {
		ready = append(ready, e.ID)
	}
	l.w.story.note("%s: view of %s: %v asleep=%t", l.name, service.Name, ready, view.Asleep)
	l.gates.Publish(service, view)
}

func (l *ledger) Activity(service scaling.Key) scaling.Activity { return l.gates.Activity(service) }

func (l *ledger) Fence(service scaling.Key) bool {
	l.worst(service)
	l.fenced(service)
	idle := l.gates.Fence(service)
	l.w.story.note("%s: fences %s: idle=%t", l.name, service.Name, idle)
	return idle
}

func (l *ledger) Lift(service scaling.Key) {
	if l.isDead() {
		return
	}
	l.w.story.note("%s: lifts %s", l.name, service.Name)
	l.lifted(service)
	l.gates.Lift(service)
}
