package resource

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// longest bounds a condition's message: what a workload printed may be in it.
const longest = 2048

// The reasons of conditions that are not words of scaling.Reason or scaling.State.
const (
	reasonAccepted    = "Accepted"
	reasonRefused     = "RoutesRefused" // accepted, but for some routes
	reasonInvalid     = "InvalidSpec"
	reasonFound       = "Found"
	reasonNotSeen     = "NotSeenYet"
	reasonNotAccepted = "NotAccepted"
)

// conditions sets those of s, which has all else and the conditions from before. Conditions that tell of something out of
// the ordinary appear with it, and stay as False when it has passed.
func (f *facts) conditions(s *v1alpha1.ElasticServiceStatus) {
	c := conditions{facts: f, list: &s.Conditions}
	claimed, refused := claimedFirst(f.conflicts)
	c.accepted(refused)
	c.found(v1alpha1.ConditionTargetFound, f.target)
	c.found(v1alpha1.ConditionEndpointsFound, f.service)
	c.ready()

	c.extra(v1alpha1.ConditionHostClaimed, len(claimed) > 0, "Claimed", strings.Join(claimed, "; "), "NotClaimed")
	c.extra(v1alpha1.ConditionSleepSuspended, f.suspended != "", "FleetIncomplete", f.suspended, "NotSuspended")
	if f.heard() {
		c.extra(v1alpha1.ConditionNoTrafficYet, f.state.NoTrafficYet, "NothingCarried",
			"the target is not put to sleep before Dormouse has carried a request for it: who uses it may not have been switched yet", "Carried")
		c.extra(v1alpha1.ConditionContended, f.state.Contended, "Reverted",
			"another writer reverted the scale again and again; the target is not put to sleep any more", "NotReverted")
	}
	for _, report := range f.reports {
		if report.Status == "" {
			meta.RemoveStatusCondition(c.list, report.Type)
			continue
		}
		c.set(report.Type, report.Status, report.Reason, report.Message)
	}
}

type conditions struct {
	*facts

	list *[]metav1.Condition
}

func (c *conditions) accepted(refused []string) {
	message := c.pinMistake
	switch {
	case len(c.mistakes) > 0:
		words := make([]string, len(c.mistakes))
		for i, mistake := range c.mistakes {
			words[i] = mistake.Error()
		}
		message = strings.Join(words, "; ")
		if c.facts.accepted {
			message += "; the spec before this one stays in use"
		}
		c.set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, reasonInvalid, message)
	case len(refused) > 0:
		if message != "" {
			refused = append(refused, message)
		}
		c.set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, reasonRefused, strings.Join(refused, "; "))
	default:
		c.set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, reasonAccepted, message)
	}
}

func (c *conditions) found(conditionType string, problem *scaling.Failure) {
	switch {
	case problem != nil:
		c.set(conditionType, metav1.ConditionFalse, string(problem.Reason), problem.Message)
	case c.heard():
		c.set(conditionType, metav1.ConditionTrue, reasonFound, "")
	default:
		c.unknown(conditionType)
	}
}

// ready follows this table, whose first line that fits decides:
//
//	an endpoint can answer        True   the phase
//	the Service cannot be found   False  its reason
//	the target cannot be scaled   False  its reason
//	the target cannot start       False  its reason
//	a new try after such          as it is: whether it is better now will be seen
//	any other phase               True   the phase
//	nothing is known              as it is, or Unknown
func (c *conditions) ready() {
	const ready = v1alpha1.ConditionReady
	st := &c.state
	before := meta.FindStatusCondition(*c.list, ready)
	switch {
	case c.heard() && st.Ready > 0:
		c.set(ready, metav1.ConditionTrue, st.State.String(), "")
	case c.service != nil:
		c.set(ready, metav1.ConditionFalse, string(c.service.Reason), c.service.Message)
	case c.target != nil:
		c.set(ready, metav1.ConditionFalse, string(c.target.Reason), c.target.Message)
	case !c.heard():
		c.unknown(ready)
	case st.Failure != nil:
		c.set(ready, metav1.ConditionFalse, string(st.Failure.Reason), st.Failure.Message)
	case st.State == scaling.StateWaking && before != nil && before.Status == metav1.ConditionFalse && !passed(before.Reason):
	case st.State == scaling.StateWaking && st.Late != "":
		c.set(ready, metav1.ConditionTrue, st.State.String(), "a pod is late: "+st.Late)
	default:
		c.set(ready, metav1.ConditionTrue, st.State.String(), "")
	}
}

// passed reports whether a reason for not being ready is known to be over where neither the backend nor the target's state
// names it any more.
func passed(reason string) bool {
	return slices.Contains([]scaling.Reason{
		scaling.ReasonNoService, scaling.ReasonTargetMissing, scaling.ReasonNotScalable, scaling.ReasonForbidden, reasonNotAccepted,
	}, scaling.Reason(reason))
}

// unknown leaves a condition as it is, or says why there is none yet.
func (c *conditions) unknown(conditionType string) {
	before := meta.FindStatusCondition(*c.list, conditionType)
	switch {
	case !c.facts.accepted && !c.known:
		c.set(conditionType, metav1.ConditionUnknown, reasonNotAccepted, "the spec was not accepted")
	case before == nil || before.Reason == reasonNotAccepted:
		c.set(conditionType, metav1.ConditionUnknown, reasonNotSeen, "")
	}
}

// extra sets a condition that is there only where it was True once.
func (c *conditions) extra(conditionType string, on bool, reason, message, reasonOff string) {
	switch {
	case on:
		c.set(conditionType, metav1.ConditionTrue, reason, message)
	case meta.FindStatusCondition(*c.list, conditionType) != nil:
		c.set(conditionType, metav1.ConditionFalse, reasonOff, "")
	}
}

func (c *conditions) set(conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(c.list, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: shorten(message, longest),
		ObservedGeneration: c.generation, LastTransitionTime: *seconds(c.now),
	})
}

// shorten cuts s to at most that many bytes of valid UTF-8.
func shorten(s string, most int) string {
	if len(s) > most {
		s = s[:most-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

func compareConditions(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) }
