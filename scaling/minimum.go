package scaling

// Minimum returns what a target keeps while it sleeps: the largest replicas.min of its services. It is false for a target
// that is not known.
func (h *ScaleHandler) Minimum(id Target) (int32, bool) {
	t := h.targets.Load().byTarget[id]
	if t == nil {
		return 0, false
	}
	services := t.known()
	if len(services) == 0 {
		return 0, false
	}
	p, _ := merge(services)
	return p.min, true
}
