package target

import "time"

// refusal is what is known, during one wake, of the creation of a target's pods being refused. It is pure. Its zero value
// is a wake's beginning.
type refusal struct {
	told    string // by the object's condition, while it holds; empty: it does not
	heard   string // by an Event; empty: none since a pod was created
	since   time.Time
	counted bool // pods were
	pods    int
	gone    time.Time // since when there are no pods
}

// condition notes whether, and why, a condition of the object says that pods are refused.
func (r *refusal) condition(now time.Time, message string) {
	r.told = message
	r.begin(now)
}

// event notes that one was refused.
func (r *refusal) event(now time.Time, message string) {
	r.heard = message
	r.begin(now)
}

func (r *refusal) begin(now time.Time) {
	switch {
	case r.told == "" && r.heard == "":
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = now
	}
}

// podsLeft notes how many pods there are. One more than before was not refused.
func (r *refusal) podsLeft(now time.Time, n int) {
	switch {
	case n > 0:
		r.gone = time.Time{}
	case r.gone.IsZero():
		r.gone = now
	}
	if r.counted && n > r.pods {
		r.heard = ""
		r.begin(now)
	}
	r.pods, r.counted = n, true
}

// finalAt is when nobody need wait any longer: the patience after both the first refusal and the last pod's end. Where
// refusals began long before that end, it is as long again: controllers try again after pauses that double, so the first
// attempt without the old pod may come as late. Zero: not as things are.
func (r *refusal) finalAt(patience time.Duration) time.Time {
	if r.since.IsZero() || r.gone.IsZero() {
		return time.Time{}
	}
	if refused := r.gone.Sub(r.since); refused > 0 {
		return r.gone.Add(max(patience, refused))
	}
	return r.since.Add(patience)
}

func (r *refusal) message() string {
	if r.told != "" {
		return r.told
	}
	return r.heard
}
