package peers

import "github.com/dormouse-dev/dormouse/scaling"

// remembered is how many outcomes are.
const remembered = 1024

// outcomes is how the last fences have ended, for those who ask late. The zero value has none.
type outcomes struct {
	by    map[scaling.Epoch]*Outcome
	order [remembered]scaling.Epoch // a ring
	next  int
}

// of returns the outcome of a fence, or nil.
func (o *outcomes) of(e scaling.Epoch) *Outcome { return o.by[e] }

func (o *outcomes) remember(outcome *Outcome) {
	if o.by == nil {
		o.by = make(map[scaling.Epoch]*Outcome, remembered)
	}
	if o.by[outcome.Epoch] == nil {
		delete(o.by, o.order[o.next])
		o.order[o.next] = outcome.Epoch
		o.next = (o.next + 1) % remembered
	}
	o.by[outcome.Epoch] = outcome
}
