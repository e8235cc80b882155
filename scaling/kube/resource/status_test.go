package resource

import (
	"strings"
	"testing"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

func awake() scaling.Status {
	return scaling.Status{State: scaling.StateAwake, Replicas: 2, Ready: 2}
}

func asleep() scaling.Status { return scaling.Status{State: scaling.StateAsleep, WakeReplicas: 2} }

func about(before v1alpha1.ElasticServiceStatus, state scaling.Status) facts {
	return facts{now: noon, before: &before, generation: 3, accepted: true, state: state, known: true}
}

// shown writes a condition as "True Reason: message".
func shown(s v1alpha1.ElasticServiceStatus, conditionType string) string {
	c := meta.FindStatusCondition(s.Conditions, conditionType)
	if c == nil {
		return ""
	}
	return strings.TrimSuffix(string(c.Status)+" "+c.Reason+": "+c.Message, ": ")
}

func TestReadyFollowsItsTable(t *testing.T) {
	failed := func(reason scaling.Reason) *scaling.Failure {
		return &scaling.Failure{Reason: reason, Message: "so it is"}
	}
	waking := scaling.Status{State: scaling.StateWaking, Replicas: 1, Pending: 1}
	unseen := scaling.Status{Replicas: -1}
	crashed := scaling.Status{State: scaling.StateFailed, Replicas: 1, Failure: failed(scaling.ReasonCrashLoop)}
	for _, c := range []struct {
		name   string
		before string // the condition's reason when it was False
		facts  facts
		want   string
	}{
		{"awake", "", facts{state: awake()}, "True Awake"},
		{"awake again", "CrashLoop", facts{state: awake()}, "True Awake"},
		{"asleep", "", facts{state: asleep()}, "True Asleep"},
		{"waking", "", facts{state: waking}, "True Waking"},
		{"trying again", "CrashLoop", facts{state: waking}, "False CrashLoop: as it was"},
		{"waking where there was no Service", "NoService", facts{state: waking}, "True Waking"},
		{"failed", "", facts{state: crashed}, "False CrashLoop: so it is"},
		{"no Service", "", facts{state: asleep(), service: failed(scaling.ReasonNoService)}, "False NoService: so it is"},
		{"no target", "", facts{state: asleep(), target: failed(scaling.ReasonTargetMissing)}, "False TargetMissing: so it is"},
		{"awake, may not be scaled", "", facts{state: awake(), target: failed(scaling.ReasonForbidden)}, "True Awake"},
		{"not seen yet", "", facts{state: unseen}, "Unknown NotSeenYet"},
		{"not seen since the restart", "CrashLoop", facts{state: unseen}, "False CrashLoop: as it was"},
		{"asleep after it failed", "CrashLoop", facts{state: asleep()}, "True Asleep"},
	} {
		before := v1alpha1.ElasticServiceStatus{}
		if c.before != "" {
			before.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionFalse, Reason: c.before, Message: "as it was"}}
		}
		f := about(before, c.facts.state)
		f.service, f.target = c.facts.service, c.facts.target
		if got := shown(f.status(), "Ready"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestASpecThatWasNeverAcceptedIsNotReady(t *testing.T) {
	f := facts{now: noon, before: &v1alpha1.ElasticServiceStatus{}, generation: 1, mistakes: field.ErrorList{
		field.Invalid(field.NewPath("spec", "idle", "after"), "x", "must be a duration"),
	}}
	s := f.status()
	for conditionType, want := range map[string]string{
		"Accepted":       `False InvalidSpec: spec.idle.after: Invalid value: "x": must be a duration`,
		"Ready":          "Unknown NotAccepted: the spec was not accepted",
		"TargetFound":    "Unknown NotAccepted: the spec was not accepted",
		"EndpointsFound": "Unknown NotAccepted: the spec was not accepted",
	} {
		if got := shown(s, conditionType); got != want {
			t.Errorf("%s: %q, want %q", conditionType, got, want)
		}
	}
	if s.ObservedGeneration != 1 || s.Phase != "" {
		t.Errorf("generation %d, phase %q", s.ObservedGeneration, s.Phase)
	}
}

func TestARestartChangesNoStatus(t *testing.T) {
	first := about(v1alpha1.ElasticServiceStatus{}, awake())
	before := first.status()
	before.ActivatorPort = 10_000
	again := about(before, scaling.Status{Replicas: -1})
	again.now = noon.Add(time.Hour)
	if got := again.status(); !apiequality.Semantic.DeepEqual(got, before) {
		t.Errorf("it was\n%+v, and becomes\n%+v", before, got)
	}
}

func TestTransitionTimesAreThoseOfTransitions(t *testing.T) {
	f := about(v1alpha1.ElasticServiceStatus{}, awake())
	before := f.status()
	f = about(before, asleep())
	f.now = noon.Add(time.Hour)
	after := f.status()
	ready := meta.FindStatusCondition(after.Conditions, "Ready")
	if ready.Reason != "Asleep" || !ready.LastTransitionTime.Time.Equal(noon) {
		t.Errorf("True before and after, it changed at %v: %+v", ready.LastTransitionTime, ready)
	}
	if after.WakeReplicas != 2 || *after.Replicas != 0 || after.Phase != "Asleep" {
		t.Errorf("%+v", after)
	}
}

func TestActivityAloneIsWrittenOnceAMinute(t *testing.T) {
	used := func(state scaling.Status, last time.Time) scaling.Status {
		state.Activity = scaling.Activity{Carried: true, Last: last}
		return state
	}
	f := about(v1alpha1.ElasticServiceStatus{}, used(awake(), noon))
	before := f.status()
	if before.LastActiveTime == nil || !before.LastActiveTime.Time.Equal(noon) {
		t.Fatalf("last active %v", before.LastActiveTime)
	}
	for _, c := range []struct {
		name  string
		state scaling.Status
		want  time.Time
	}{
		{"soon after", used(awake(), noon.Add(59*time.Second)), noon},
		{"a minute after", used(awake(), noon.Add(time.Minute)), noon.Add(time.Minute)},
		{"put to sleep", used(asleep(), noon.Add(10*time.Second)), noon.Add(10 * time.Second)},
		{"before", used(asleep(), noon.Add(-time.Second)), noon},
		{"only waited for", scaling.Status{State: scaling.StateWaking, Activity: scaling.Activity{Held: 1, Last: noon.Add(time.Hour)}}, noon},
	} {
		f := about(before, c.state)
		if got := f.status().LastActiveTime; got == nil || !got.Time.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if f := about(v1alpha1.ElasticServiceStatus{}, scaling.Status{State: scaling.StateWaking, Activity: scaling.Activity{Held: 1}}); f.status().LastActiveTime != nil {
		t.Error("a service that carried nothing was active")
	}
}

func TestConditionsOutOfTheOrdinaryComeAndStayAsFalse(t *testing.T) {
	f := about(v1alpha1.ElasticServiceStatus{}, awake())
	plain := f.status()
	if len(plain.Conditions) != 4 {
		t.Errorf("an ordinary service has %d conditions: %+v", len(plain.Conditions), plain.Conditions)
	}
	state := awake()
	state.Contended, state.NoTrafficYet = true, true
	f = about(plain, state)
	f.conflicts = []Conflict{{Message: "host b belongs to x/y", Claimed: true}, {Message: "host a belongs to x/y", Claimed: true}, {Message: "host c can never match"}}
	f.suspended = "2 activators run"
	f.pinMistake = "annotation is ignored"
	f.reports = []metav1.Condition{{Type: "NameTaken", Status: metav1.ConditionTrue, Reason: "NotOurs", Message: "m"}}
	odd := f.status()
	for conditionType, want := range map[string]string{
		"HostClaimed":    "True Claimed: host a belongs to x/y; host b belongs to x/y",
		"Accepted":       "True RoutesRefused: host c can never match; annotation is ignored",
		"SleepSuspended": "True FleetIncomplete: 2 activators run",
		"NameTaken":      "True NotOurs: m",
		"TargetFound":    "True Found",
		"EndpointsFound": "True Found",
	} {
		if got := shown(odd, conditionType); got != want {
			t.Errorf("%s: %q, want %q", conditionType, got, want)
		}
	}
	for _, conditionType := range []string{"NoTrafficYet", "Contended"} {
		if got := shown(odd, conditionType); !strings.HasPrefix(got, "True ") {
			t.Errorf("%s: %q", conditionType, got)
		}
	}
	f = about(odd, awake())
	f.reports = []metav1.Condition{{Type: "NameTaken"}}
	over := f.status()
	for _, conditionType := range []string{"HostClaimed", "SleepSuspended", "NoTrafficYet", "Contended"} {
		if got := shown(over, conditionType); !strings.HasPrefix(got, "False ") {
			t.Errorf("%s is over: %q", conditionType, got)
		}
	}
	if got := shown(over, "NameTaken"); got != "" {
		t.Errorf("a condition that was taken away is %q", got)
	}
}

func TestEventsTellWhatChanged(t *testing.T) {
	status := func(before v1alpha1.ElasticServiceStatus, state scaling.Status, change func(*facts)) v1alpha1.ElasticServiceStatus {
		f := about(before, state)
		if change != nil {
			change(&f)
		}
		return f.status()
	}
	none := v1alpha1.ElasticServiceStatus{}
	up, down := status(none, awake(), nil), status(status(none, awake(), nil), asleep(), nil)
	crash := scaling.Status{State: scaling.StateFailed, Replicas: 1, Failure: &scaling.Failure{Reason: scaling.ReasonImagePull, Message: "no such image"}}
	broken := status(down, crash, nil)
	retried := status(broken, scaling.Status{State: scaling.StateWaking, Replicas: 1}, nil)
	woken := awake()
	woken.LastColdStart = 1234567 * time.Microsecond
	mistaken := status(up, awake(), func(f *facts) {
		f.mistakes = field.ErrorList{field.Invalid(field.NewPath("spec", "idle"), "x", "must be better")}
	})
	for _, c := range []struct {
		name          string
		before, after v1alpha1.ElasticServiceStatus
		want          string
	}{
		{"found awake", none, up, ""},
		{"unchanged", up, up, ""},
		{"put to sleep", up, down, "ScaledToZero: asleep at 0 replicas; it had 2"},
		{"woken", down, status(down, woken, nil), "WokenUp: awake at 2 replicas; its cold start took 1.235s"},
		{"cannot start", down, broken, "CannotStart: ImagePull: no such image"},
		{"tries again", broken, retried, ""},
		{"cannot start again", retried, status(retried, crash, nil), ""},
		{"starts after all", retried, status(retried, awake(), nil), "WokenUp: awake at 2 replicas"},
		{"mistaken", up, mistaken, `InvalidSpec: spec.idle: Invalid value: "x": must be better; the spec before this one stays in use`},
		{"still mistaken", mistaken, mistaken, ""},
		{"claimed", up, status(up, awake(), func(f *facts) { f.conflicts = []Conflict{{Message: "host a is b's", Claimed: true}} }), "HostClaimed: host a is b's"},
	} {
		var got []string
		for _, e := range changes(&c.before, &c.after) {
			got = append(got, e.reason+": "+e.note)
		}
		if strings.Join(got, " | ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAWarningIsNotRepeatedForAWhile(t *testing.T) {
	r := &record{}
	warning, other, normal := event{warning: true, reason: "CannotStart", note: "a"}, event{warning: true, reason: "CannotStart", note: "b"}, event{reason: "WokenUp"}
	for i, c := range []struct {
		after time.Duration
		event event
		want  int
	}{
		{0, warning, 1},
		{time.Minute, warning, 0},
		{2 * time.Minute, other, 1},
		{20 * time.Minute, other, 1},
		{20 * time.Minute, normal, 1},
		{20 * time.Minute, normal, 1},
	} {
		if got := len(r.news(noon.Add(c.after), []event{c.event})); got != c.want {
			t.Errorf("%d: told %d times, want %d", i, got, c.want)
		}
	}
}

func TestWhatAWorkloadPrintedFitsAMessage(t *testing.T) {
	for _, s := range []string{strings.Repeat("ä", 2000), "\xff\xfe", strings.Repeat("x", longest), ""} {
		if got := shorten(s, longest); len(got) > longest || strings.ToValidUTF8(got, "?") != got {
			t.Errorf("%d bytes of %.10q became %d", len(s), s, len(got))
		}
	}
}
