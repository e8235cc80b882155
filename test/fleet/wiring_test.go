package fleet

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

var _ peers.Membership = (*process)(nil)

func (p *process) newFleet(logger *zap.Logger, m *metrics.Metrics) *peers.Fleet {
	return peers.New(peers.Options{
		ID: p.id, Logger: logger, Scaler: p.handler, Membership: p, Metrics: m, Clock: p.clock,
		Open: func() {
			p.w.story.note("%s opens its gates", p.name)
			p.gates.Open()
		},
		IdleAfter: func(target scaling.Target) (idle time.Duration) {
			for _, s := range p.w.services {
				if s.Target == target {
					idle = max(idle, s.Idle.After)
				}
			}
			return idle
		},
	})
}

// leader tells the fleet what the election has come to.
func (p *process) leader(l lease) { p.fleet.Leader(l.holder, l.term, l.holder == string(p.id)) }

// resign has the fleet end its fences.
func (p *process) resign() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	return p.fleet.Resign(ctx)
}

// may is the last question before a scale is lowered.
func (p *process) may(ctx context.Context, target scaling.Target) error {
	return p.fleet.May(ctx, target)
}

// Members implements [peers.Membership]: the pods that the cluster lists.
func (p *process) Members(ctx context.Context) ([]peers.Member, error) {
	c := p.w.cluster
	if err := c.reach(ctx, p); err != nil {
		return nil, fmt.Errorf("list the activators: %w", err)
	}
	c.mu.Lock()
	members := make([]peers.Member, 0, len(c.pods))
	for _, pod := range c.pods {
		members = append(members, peers.Member{ID: pod.uid, Name: pod.name, Running: pod.running})
	}
	c.mu.Unlock()
	return members, c.reach(ctx, p)
}

// follow tells the fleet of the members, a little late.
func (p *process) follow(ctx context.Context) error {
	for {
		if members, err := p.Members(ctx); err == nil {
			p.fleet.Known(members)
		}
		if err := sleep(ctx, p.dice.upTo(time.Second)); err != nil {
			return err
		}
	}
}
