package resource

import (
	"slices"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// activeEvery is how old lastActiveTime may be where nothing else of the status changes: it is not written per request.
const activeEvery = time.Minute

// facts are what a resource's status is made of. Making it is pure.
type facts struct {
	now    time.Time
	before *v1alpha1.ElasticServiceStatus // the status as it is; not changed

	generation int64 // that was compiled
	mistakes   field.ErrorList
	accepted   bool   // this spec, or one before it, is in use
	pinMistake string // empty: none
	conflicts  []Conflict

	state           scaling.Status
	known           bool             // there is a state
	service, target *scaling.Failure // what is wrong with them, or nil
	reports         []metav1.Condition
	suspended       string // why nothing is put to sleep, or empty
}

// status is what the resource's status should be. What is not known yet stays as it was: a restart changes nothing.
func (f *facts) status() v1alpha1.ElasticServiceStatus {
	s := *f.before.DeepCopy()
	s.ObservedGeneration = f.generation
	if f.heard() {
		st := &f.state
		s.Phase = st.State.String()
		s.ReadyEndpoints = count(st.Ready)
		if st.Replicas >= 0 {
			s.Replicas = new(st.Replicas)
		}
		if st.WakeReplicas > 0 {
			s.WakeReplicas = st.WakeReplicas
		}
		if !st.LastWake.IsZero() {
			s.LastWakeTime = seconds(st.LastWake)
		}
		if st.LastColdStart > 0 {
			s.LastColdStart = st.LastColdStart.Round(time.Millisecond).String()
		}
	}
	f.conditions(&s)
	active := f.active()
	if active == nil || f.before.LastActiveTime != nil && !f.before.LastActiveTime.Before(active) {
		return s
	}
	if f.before.LastActiveTime == nil || active.Sub(f.before.LastActiveTime.Time) >= activeEvery ||
		!apiequality.Semantic.DeepEqual(s, *f.before) {
		s.LastActiveTime = active
	}
	return s
}

// heard reports whether anything is known of the target since this process began.
func (f *facts) heard() bool {
	return f.known && (f.state.Replicas >= 0 || f.state.Ready+f.state.Pending > 0 || f.state.State != scaling.StateAsleep)
}

// dawning reports whether there is nothing to say yet but that nothing is known.
func (f *facts) dawning() bool {
	return f.known && !f.heard() && len(f.mistakes) == 0 && f.service == nil && f.target == nil
}

// active is when the service was last seen in use, or nil: a request that only waited is no use.
func (f *facts) active() *metav1.Time {
	a := &f.state.Activity
	switch {
	case !f.known || !a.Carried:
		return nil
	case a.Busy():
		return seconds(f.now)
	case a.Last.IsZero():
		return nil
	}
	return seconds(a.Last)
}

// seconds is as much of a time as a status holds.
func seconds(t time.Time) *metav1.Time {
	return new(metav1.NewTime(t.UTC().Truncate(time.Second)))
}

func count(n int) *int32 { return new(int32(min(n, 1<<30))) } //nolint:gosec // it is bounded

func claimedFirst(conflicts []Conflict) (claimed, others []string) {
	for _, c := range conflicts {
		if c.Claimed {
			claimed = append(claimed, c.Message)
		} else {
			others = append(others, c.Message)
		}
	}
	slices.Sort(claimed)
	slices.Sort(others)
	return slices.Compact(claimed), slices.Compact(others)
}
