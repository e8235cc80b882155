package model

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

var _ scaling.Backend = (*platform)(nil)

// platform is a Fake whose watch lags, and whose scale is written late, wrongly, or not at all.
type platform struct {
	*backendtest.Fake
	w        *world
	lag      time.Duration // of the watch
	latency  time.Duration // of a write
	coalesce bool          // of the snapshots that wait, a service gets the newest only

	mu       sync.Mutex // guards the following
	services map[scaling.Key]*scaling.Service
	shown    map[scaling.Key]*scaling.Endpoints // delivered last
	faults   []fault                            // of the next writes
	refusing map[string]bool                    // endpoints whose connections are refused
	starved  bool                               // no descriptors are left
}

// fault is what happens to one scale write.
type fault struct {
	delay  time.Duration
	before error // instead of the write
	after  error // as well as the write
}

func newPlatform(w *world) *platform {
	lags := []time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond, 98 * time.Millisecond, 500 * time.Millisecond}
	return &platform{
		Fake: backendtest.NewFake(), w: w, coalesce: w.chance(0.5),
		lag: lags[w.rng.IntN(len(lags))], latency: lags[w.rng.IntN(len(lags))],
		services: make(map[scaling.Key]*scaling.Service),
		shown:    make(map[scaling.Key]*scaling.Endpoints),
		refusing: make(map[string]bool),
	}
}

// Scale implements [scaling.Backend].
func (p *platform) Scale(ctx context.Context, service *scaling.Service, replicas int32) error {
	p.mu.Lock()
	var f fault
	if len(p.faults) > 0 {
		f, p.faults = p.faults[0], p.faults[1:]
	}
	p.mu.Unlock()
	member := p.member(service)
	if member == nil {
		return &scaling.Failure{Reason: scaling.ReasonTargetMissing}
	}
	latest, known := p.Latest(member.Key)
	if !known { // it was removed just now
		return &scaling.Failure{Reason: scaling.ReasonTargetMissing}
	}
	spec := latest.Spec
	sleep := replicas == service.Replicas.Min && replicas < spec
	p.w.note("write %s %d over %d: %+v", service.Target.Name, replicas, spec, f)
	if sleep {
		p.w.model.sleeping(service.Target, p.known(service.Target))
	}
	err := p.write(ctx, service, replicas, f)
	p.w.note("wrote %s %d: %v", service.Target.Name, replicas, err)
	p.w.model.wrote(service.Target, sleep, err)
	return err
}

// Watch implements [scaling.Backend]: snapshots come p.lag late, in order.
func (p *platform) Watch(ctx context.Context, sink func(*scaling.Endpoints)) error {
	mail := &mail{platform: p, sink: sink, arrived: make(chan struct{}, 1), stop: make(chan struct{})}
	var courier sync.WaitGroup
	courier.Go(mail.carry)
	defer courier.Wait()
	defer close(mail.stop)
	return p.Fake.Watch(ctx, mail.post)
}

// adopt makes services the ones that the Fake knows.
func (p *platform) adopt(services []*scaling.Service) {
	p.mu.Lock()
	before := p.services
	p.services = make(map[scaling.Key]*scaling.Service)
	for _, s := range services {
		p.services[s.Key] = s
	}
	now := p.services
	p.mu.Unlock()
	for key, s := range before {
		if now[key] == nil || now[key].Target != s.Target {
			p.Remove(key)
			p.mu.Lock()
			delete(p.shown, key)
			p.mu.Unlock()
		}
	}
	for _, s := range services {
		if before[s.Key] != s {
			p.Add(s)
		}
	}
}

func (p *platform) knows(key scaling.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.services[key] != nil
}

func (p *platform) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.starved = nil, false
	clear(p.refusing)
}

// heal makes a target able to start.
func (p *platform) heal(key scaling.Key) {
	p.SetWorkload(key, backendtest.Workload{Ready: 100 * time.Millisecond})
	p.Fail(key, nil)
	p.SetReady(key, true)
}

func (p *platform) write(ctx context.Context, service *scaling.Service, replicas int32, f fault) error {
	select {
	case <-time.After(f.delay + p.latency):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.before != nil {
		return f.before
	}
	member := p.member(service)
	if member == nil {
		return &scaling.Failure{Reason: scaling.ReasonTargetMissing}
	}
	if err := p.Fake.Scale(ctx, member, replicas); err != nil {
		return err
	}
	return f.after
}

// member returns service as a service that its target has now: the Fake finds targets by their services, and this one may
// have moved to another.
func (p *platform) member(service *scaling.Service) *scaling.Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys() {
		if s := p.services[key]; s != nil && s.Target == service.Target {
			found := *service
			found.Key = key
			return &found
		}
	}
	return nil
}

// target returns the target of a service, or none if there is no such service.
func (p *platform) target(service scaling.Key) (none scaling.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.services[service]; s != nil {
		return s.Target
	}
	return none
}

// known returns the identities that the watch has shown of a target.
func (p *platform) known(target scaling.Target) (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, snapshot := range p.shown {
		if s := p.services[key]; s != nil && s.Target == target {
			all = append(all, ids(snapshot)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// alive reports whether an endpoint is there to be connected to.
func (p *platform) alive(service scaling.Key, id string) bool {
	p.mu.Lock()
	refusing, known := p.refusing[id], p.services[service] != nil
	p.mu.Unlock()
	if refusing || !known {
		return false
	}
	latest, known := p.Latest(service)
	return known && slices.ContainsFunc(latest.Ready, func(e scaling.Endpoint) bool { return e.ID == id })
}

func (p *platform) isStarved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starved
}

// delivered notes the snapshot that a watch is about to be given.
func (p *platform) delivered(snapshot *scaling.Endpoints) {
	p.mu.Lock()
	p.shown[snapshot.Service] = snapshot
	p.mu.Unlock()
	p.w.note("snapshot %v", (*shownSnapshot)(snapshot))
}

// someFault makes up what happens to a write.
func (w *world) someFault() (f fault) {
	delays := []time.Duration{0, 5 * time.Millisecond, 200 * time.Millisecond, 4 * time.Second, 12 * time.Second}
	f.delay = w.upTo(delays[w.rng.IntN(len(delays))])
	switch w.rng.IntN(6) {
	case 0:
		f.before = errors.New("connection refused")
	case 1:
		f.after = errors.New("connection reset")
	case 2:
		f.before = &scaling.Failure{Reason: scaling.ReasonForbidden}
	}
	return f
}
