package resource

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

const (
	// repeatAfter is how soon an Event may say the same of the same resource again.
	repeatAfter = 10 * time.Minute
	// longestNote is what events.k8s.io/v1 takes of a note, in bytes.
	longestNote = 1024

	reportingController = "dormouse.dev/activator"
)

// event is what an Event tells.
type event struct {
	warning              bool
	reason, action, note string
}

// changes tells what has happened between two states of a resource's status. It is pure.
func changes(before, after *v1alpha1.ElasticServiceStatus) (events []event) {
	if e, ok := phaseChange(before, after); ok {
		events = append(events, e)
	}
	became := func(conditionType string, status metav1.ConditionStatus) (*metav1.Condition, bool) {
		was, is := meta.FindStatusCondition(before.Conditions, conditionType), meta.FindStatusCondition(after.Conditions, conditionType)
		if is == nil || is.Status != status {
			return nil, false
		}
		return is, was == nil || was.Status != status || was.Reason != is.Reason
	}
	warn := func(reason, action, note string) {
		events = append(events, event{warning: true, reason: reason, action: action, note: shorten(note, longestNote)})
	}
	if is, ok := became(v1alpha1.ConditionReady, metav1.ConditionFalse); ok {
		warn("CannotStart", "Wake", is.Reason+": "+is.Message)
	}
	if is := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionAccepted); is != nil && is.Status == metav1.ConditionFalse {
		was := meta.FindStatusCondition(before.Conditions, v1alpha1.ConditionAccepted)
		if was == nil || was.Message != is.Message { // another mistake is news
			warn(reasonInvalid, "Accept", is.Message)
		}
	}
	for _, conditionType := range []string{
		v1alpha1.ConditionHostClaimed, v1alpha1.ConditionNameTaken, v1alpha1.ConditionContended,
	} {
		if is, ok := became(conditionType, metav1.ConditionTrue); ok {
			warn(conditionType, "Accept", is.Message)
		}
	}
	return events
}

// phaseChange tells of a target that was put to sleep or woken. The first phase of all is no change.
func phaseChange(before, after *v1alpha1.ElasticServiceStatus) (event, bool) {
	asleep, awake := scaling.StateAsleep.String(), scaling.StateAwake.String()
	if before.Phase == "" || before.Phase == after.Phase || after.Replicas == nil {
		return event{}, false
	}
	switch after.Phase {
	case asleep:
		if before.Phase == scaling.StateFailed.String() {
			break // it did not run before, either
		}
		reason := "ScaledToZero"
		if *after.Replicas > 0 {
			reason = "ScaledDown"
		}
		return event{reason: reason, action: "Sleep", note: fmt.Sprintf("asleep at %d replicas; it had %d", *after.Replicas, after.WakeReplicas)}, true
	case awake:
		note := fmt.Sprintf("awake at %d replicas", *after.Replicas)
		if after.LastColdStart != before.LastColdStart {
			note += "; its cold start took " + after.LastColdStart
		}
		return event{reason: "WokenUp", action: "Wake", note: note}, true
	}
	return event{}, false
}

// news leaves out the warnings that were told of late, and notes the others as told.
func (r *record) news(now time.Time, events []event) (news []event) {
	for _, e := range events {
		if e.warning {
			if last, ok := r.told[e.reason]; ok && last.note == e.note && now.Sub(last.at) < repeatAfter {
				continue
			}
			if r.told == nil {
				r.told = make(map[string]told)
			}
			r.told[e.reason] = told{e.note, now}
		}
		news = append(news, e)
	}
	return news
}

// tell writes Events. Nothing depends on them, so one that cannot be written is only logged.
func (c *Controller) tell(ctx context.Context, about *v1alpha1.ElasticService, now time.Time, events []event) {
	for i, e := range events {
		object := c.newEvent(about, now.Add(time.Duration(i)), e)
		_, err := c.options.Cluster.Kube.EventsV1().Events(about.Namespace).Create(ctx, object, metav1.CreateOptions{})
		if err == nil {
			continue
		}
		level := zap.WarnLevel
		if isNamespaceEnding(err) {
			level = zap.DebugLevel
		}
		c.logger.Log(level, "an Event could not be written", zap.String("namespace", about.Namespace), zap.String("name", about.Name),
			zap.String("reason", e.reason), zap.Error(err))
	}
}

// newEvent returns an Event whose name no other one has, if now differs.
func (c *Controller) newEvent(about *v1alpha1.ElasticService, now time.Time, e event) *eventsv1.Event {
	object := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: about.Namespace,
			Name:      about.Name + "." + strconv.FormatInt(now.UnixNano(), 16),
		},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: reportingController,
		ReportingInstance:   c.instance,
		Type:                corev1.EventTypeNormal,
		Reason:              e.reason,
		Action:              e.action,
		Note:                e.note,
		Regarding: corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion().String(), Kind: "ElasticService",
			Namespace: about.Namespace, Name: about.Name, UID: about.UID, ResourceVersion: about.ResourceVersion,
		},
	}
	if e.warning {
		object.Type = corev1.EventTypeWarning
	}
	return object
}

// instance names this process in Events: in a pod, the pod.
func instance() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "activator"
	}
	return shorten(name, 128)
}
