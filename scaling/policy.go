package scaling

import "time"

// policy is what the services of a target ask of its lifecycle: the largest wish of any of them.
type policy struct {
	min, wake, max int32
	idleAfter      time.Duration // zero: never put to sleep
	initial        bool
	concurrency    int // requests in flight per endpoint; zero: unlimited

	prior   int32 // what the target had when an earlier process put it to sleep; zero: not known
	carried bool  // an earlier process has carried a request for it
}

// Minimum returns what a target keeps while it sleeps: the largest replicas.min of its services. It is false for a target
// that is not known.
func (h *ScaleHandler) Minimum(id Target) (int32, bool) {
	p, known := h.policy(id)
	return p.min, known
}

// IdleAfter returns how long a target must not be used before it is put to sleep; zero: it never is, or is not known.
func (h *ScaleHandler) IdleAfter(id Target) time.Duration {
	p, _ := h.policy(id)
	return p.idleAfter
}

// policy is what the services of a target ask of it.
func (h *ScaleHandler) policy(id Target) (p policy, known bool) {
	t := h.targets.Load().byTarget[id]
	if t == nil || len(t.known()) == 0 {
		return policy{}, false
	}
	p, _ = merge(t.known())
	return p, true
}

// merge returns what services ask of their target together: the largest of each wish.
func merge(services []*Service) (policy, *Service) {
	first := services[0]
	p := policy{max: first.Replicas.Max, concurrency: first.Upstream.MaxConcurrency}
	never := false
	for _, s := range services {
		p.min = max(p.min, s.Replicas.Min)
		p.wake = max(p.wake, s.Replicas.Wake)
		p.max = max(p.max, s.Replicas.Max)
		p.idleAfter = max(p.idleAfter, s.Idle.After)
		p.initial = p.initial || s.Idle.Initial
		never = never || s.Idle.After <= 0
		p.prior = max(p.prior, s.History.Wake)
		p.carried = p.carried || s.History.Carried
		if c := s.Upstream.MaxConcurrency; c > 0 && (p.concurrency == 0 || c < p.concurrency) {
			p.concurrency = c
		}
	}
	for _, s := range services {
		if s.Replicas.Max == 0 {
			p.max = 0
		}
	}
	if never {
		p.idleAfter = 0
	}
	if len(services) == 1 {
		return p, first
	}
	merged := *first
	merged.Replicas = Replicas{Min: p.min, Wake: p.wake, Max: p.max}
	return p, &merged
}
