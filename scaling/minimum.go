package scaling

import "time"

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
