package target

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAnyKindWithAScaleWakesAndSleepsByOneRequestEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Widget", true)
	w.deployment(t, "shop", 0)
	w.statefulSet(t, "shop", 0)
	w.replicaSet(t, "shop", 0)
	w.custom(t, "Widget", "shop", 0)
	w.create(t, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: w.namespace},
		Spec: corev1.ReplicationControllerSpec{Replicas: new(int32), Selector: map[string]string{"rc": "shop"}, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"rc": "shop"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app.invalid/app"}}},
		}},
	})
	for _, test := range []struct {
		apiVersion, kind, selector string
		settles                    bool // its controller runs here
	}{
		{"apps/v1", "Deployment", "app=shop", true},
		{"apps/v1", "StatefulSet", "app=shop", true},
		{"apps/v1", "ReplicaSet", "app=shop", true},
		{"v1", "ReplicationController", "rc=shop", true},
		{"test.example.com/v1", "Widget", "", false},
	} {
		t.Run(test.kind, func(t *testing.T) {
			ref := w.ref(test.apiVersion, test.kind, "shop")
			f := w.follow(t, ref)
			if s := f.untilSpec(t, 0); s.Selector != test.selector {
				t.Errorf("its selector is %q, want %q", s.Selector, test.selector)
			}
			o := objectFor(ref)
			w.get(t, o)
			before := o.GetGeneration()

			f.scale(t, w, !test.settles, -1, 2)
			if s := f.untilSpec(t, 2); s.Settled && !test.settles {
				t.Error("it is settled, and has no controller that could say so")
			}
			if test.settles {
				f.until(t, "is settled", func(s State) bool { return s.Settled })
			}
			w.get(t, o)
			if after := o.GetGeneration(); after != before+1 {
				t.Errorf("a wake changed it %d times, want once", after-before)
			}
			if test.settles { // its status is written for a while, and each time may cost a second attempt
				if err := w.targets.Scale(t.Context(), ref, 0, 0, nil); err != nil {
					t.Error(err)
				}
			} else {
				f.scale(t, w, true, 0, 0)
			}
			f.untilSpec(t, 0)
		})
	}
}

// scale demands that one write is all that it takes; where a controller writes as well, that no reading comes before it.
func (f *followed) scale(t *testing.T, w *world, alone bool, minimum, replicas int32) {
	t.Helper()
	var err error
	requests := w.wire.during(func() { err = f.targets.Scale(t.Context(), f.ref, minimum, replicas, nil) })
	if err != nil {
		t.Fatal(err)
	}
	// Only those of this target: a reading that comes later is of what was written.
	requests = slices.DeleteFunc(requests, func(r string) bool { return !strings.HasSuffix(r, "/"+f.ref.Name+"/scale") })
	puts := 0
	for _, r := range requests {
		if strings.HasPrefix(r, "PUT ") {
			puts++
		}
	}
	if len(requests) == 0 || !strings.HasPrefix(requests[0], "PUT ") || alone && puts != 1 {
		t.Errorf("it took %q, want one write", requests)
	}
}

func objectFor(ref Ref) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(ref.APIVersion)
	u.SetKind(ref.Kind)
	u.SetNamespace(ref.Namespace)
	u.SetName(ref.Name)
	return u
}

func (w *world) get(t *testing.T, o client.Object) {
	t.Helper()
	if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
}

func TestAWakeNeverLowersAndASleepOnlyToTheMinimum(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.deployment(t, "shop", 3)
	ref := w.ref("apps/v1", "Deployment", "shop")
	f := w.follow(t, ref)
	f.untilSpec(t, 3)
	for _, step := range []struct {
		what              string
		minimum, replicas int32
		want              int32
	}{
		{"a smaller wake", -1, 1, 3},
		{"a wake of what there is", -1, 3, 3},
		{"a number above the minimum", 0, 1, 3},
		{"a larger wake", -1, 5, 5},
		{"a sleep to a minimum above 0", 2, 2, 2},
		{"a sleep to what there is", 2, 2, 2},
		{"a sleep", 0, 0, 0},
		{"a wake", -1, 1, 1},
	} {
		before := w.generation(t, d)
		if err := w.targets.Scale(t.Context(), ref, step.minimum, step.replicas, nil); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := w.spec(t, d); got != step.want {
			t.Errorf("%s (%d) left %d, want %d", step.what, step.replicas, got, step.want)
		}
		// No waiting for the watch in between: it may be behind at every step.
		if after := w.generation(t, d); after-before > 1 {
			t.Errorf("%s wrote %d times", step.what, after-before)
		}
	}
}

func (w *world) generation(t *testing.T, d *appsv1.Deployment) int64 {
	t.Helper()
	got := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	w.get(t, got)
	return got.Generation
}

// Whoever writes between our look and our write is not undone.
func TestAnotherWriterInBetweenIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what              string
		spec              int32
		meanwhile         string
		minimum, replicas int32
		want              int32
	}{
		{"a change of something else", 0, `{"metadata":{"annotations":{"a":"b"}}}`, -1, 1, 1},
		{"a larger wish", 0, `{"spec":{"replicas":3}}`, -1, 1, 3},
		{"a smaller wish", 2, `{"spec":{"replicas":0}}`, -1, 2, 2},
		{"a smaller wish during a wake", 1, `{"spec":{"replicas":0}}`, -1, 2, 2},
		{"a change of something else during a sleep", 2, `{"metadata":{"annotations":{"a":"b"}}}`, 0, 0, 0},
		{"a sleep of another's", 2, `{"spec":{"replicas":0}}`, 0, 0, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.deployment(t, "shop", test.spec)
			ref := w.ref("apps/v1", "Deployment", "shop")
			w.follow(t, ref).untilSpec(t, test.spec)
			var once sync.Once
			w.wire.meanwhile(func(r *http.Request) (err error) {
				if strings.HasSuffix(r.URL.Path, "/scale") {
					once.Do(func() { err = w.patch(r.Context(), d, test.meanwhile) })
				}
				return err
			})
			if err := w.targets.Scale(t.Context(), ref, test.minimum, test.replicas, nil); err != nil {
				t.Fatal(err)
			}
			if got := w.spec(t, d); got != test.want {
				t.Errorf("it has %d, want %d", got, test.want)
			}
		})
	}
}

// The watch may be behind: a target that it still shows awake was put to sleep a moment ago.
func TestAWakeIsNeverLeftOutForWhatALateWatchShows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.deployment(t, "shop", 1)
	ref := w.ref("apps/v1", "Deployment", "shop")
	w.follow(t, ref).until(t, "is settled", func(s State) bool { return s.Spec == 1 && s.Settled })
	thaw := w.wire.delay()
	defer thaw()
	if err := w.patch(t.Context(), d, `{"spec":{"replicas":0}}`); err != nil {
		t.Fatal(err)
	}
	if err := w.targets.Scale(t.Context(), ref, -1, 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.spec(t, d); got != 1 {
		t.Errorf("it has %d, want 1", got)
	}
}

// Whoever scales up while we put to sleep has a reason, whether the watch has told of it or not.
func TestASleepDoesNotUndoAnothersScaleUp(t *testing.T) {
	t.Parallel()
	for what, seen := range map[string]int32{"known awake": 1, "known asleep": 0} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.deployment(t, "shop", seen)
			ref := w.ref("apps/v1", "Deployment", "shop")
			w.follow(t, ref).until(t, "is settled", func(s State) bool { return s.Spec == seen && s.Settled })
			thaw := w.wire.delay()
			defer thaw()
			if err := w.patch(t.Context(), d, `{"spec":{"replicas":5}}`); err != nil {
				t.Fatal(err)
			}
			err := w.targets.Scale(t.Context(), ref, 0, 0, nil)
			if failure, certain := errors.AsType[*scaling.Failure](err); !certain || failure.Reason != scaling.ReasonScaleFailed ||
				!strings.Contains(err.Error(), fmt.Sprintf("from %d to 5", seen)) {
				t.Errorf("got %v, want a failure that says who was faster", err)
			}
			if got := w.spec(t, d); got != 5 {
				t.Errorf("it has %d, want 5", got)
			}
		})
	}
}

// Who allows a sleep says what is so now: a write that arrives much later is not allowed any more.
func TestASleepIsWrittenAtOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.deployment(t, "shop", 1)
	ref := w.ref("apps/v1", "Deployment", "shop")
	w.follow(t, ref).until(t, "is settled", func(s State) bool { return s.Spec == 1 && s.Settled })
	for _, hangs := range []string{http.MethodGet, http.MethodPut} {
		var asked string
		w.wire.meanwhile(func(r *http.Request) error {
			switch {
			case !strings.HasSuffix(r.URL.Path, "/scale"):
			case r.Method == hangs:
				asked = r.URL.Query().Get("timeout")
				<-r.Context().Done()
				return r.Context().Err()
			case r.Method == http.MethodPut: // then the scale is read
				return w.patch(r.Context(), d, `{"metadata":{"annotations":{"a":"b"}}}`)
			}
			return nil
		})
		began := time.Now()
		err := w.targets.Scale(t.Context(), ref, 0, 0, nil)
		_, certain := errors.AsType[*scaling.Failure](err)
		if err == nil || certain != (hangs == http.MethodGet) {
			t.Errorf("%s hangs: got %v, certain %t", hangs, err, certain)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s hangs: it took %v, want 1 s", hangs, took)
		}
		if hangs == http.MethodPut && asked != "1s" {
			t.Errorf("the API server is asked to give up after %q, want 1s", asked)
		}
	}
	if got := w.spec(t, d); got != 1 {
		t.Errorf("it has %d, want 1", got)
	}
}

// Who allows a sleep is asked last, so that as little as can be happens in between, and again for every attempt.
func TestWhoAllowsASleepIsAskedBeforeEachWriteThatLowers(t *testing.T) {
	t.Parallel()
	newWorld(t).define(t, "Napper", true) // no controller writes its status: a conflict is the test's
	no := errors.New("somebody has come")
	for _, test := range []struct {
		what              string
		spec              int32
		minimum, replicas int32
		allowed           int // times
		answer            int // to the first write, in the API server's place; 0: its own
		asked             int
		certain           bool
		want              int32
	}{
		{"allowed", 1, 0, 0, 9, 0, 1, false, 0},
		{"refused", 1, 0, 0, 0, 0, 1, true, 1},
		{"refused after a conflict", 1, 0, 0, 1, http.StatusConflict, 2, true, 1},
		{"allowed after a conflict", 1, 0, 0, 2, http.StatusConflict, 2, false, 0},
		{"the API server is busy", 1, 0, 0, 9, http.StatusTooManyRequests, 1, true, 1},
		{"asleep already", 0, 0, 0, 0, 0, 0, false, 0},
		{"raised to its minimum", 1, 2, 2, 0, 0, 0, false, 2},
		{"a wake", 1, -1, 3, 0, 0, 0, false, 3},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := w.custom(t, "Napper", "shop", int64(test.spec))
			ref := w.ref("test.example.com/v1", "Napper", "shop")
			w.follow(t, ref).untilSpec(t, test.spec)
			asked, puts := 0, 0
			w.wire.answering(func(r *http.Request) int {
				if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/scale") {
					return 0
				}
				if puts++; puts == 1 {
					return test.answer
				}
				return 0
			})
			err := w.targets.Scale(t.Context(), ref, test.minimum, test.replicas, func(context.Context) error {
				if asked++; puts != asked-1 {
					t.Errorf("asked for the %d. time after %d writes", asked, puts)
				}
				if asked > test.allowed {
					return no
				}
				return nil
			})
			failure, certain := errors.AsType[*scaling.Failure](err)
			if certain != test.certain || certain && failure.Reason != scaling.ReasonScaleFailed || !certain && err != nil {
				t.Errorf("got %v, certain %t", err, certain)
			}
			if test.asked > test.allowed && !errors.Is(err, no) {
				t.Errorf("got %v, want why it was refused", err)
			}
			if asked != test.asked {
				t.Errorf("asked %d times, want %d", asked, test.asked)
			}
			if got := w.spec(t, o); got != test.want {
				t.Errorf("it has %d, want %d", got, test.want)
			}
		})
	}
}

func TestAnErrorLeavesItToTheCallerToSayWhatWasToBeDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deployment(t, "shop", 1)
	for replicas, reason := range map[int32]scaling.Reason{-7: scaling.ReasonInvalid, 3: scaling.ReasonTargetMissing} {
		name := "shop"
		if replicas > 0 {
			name = "missing"
		}
		ref := w.ref("apps/v1", "Deployment", name)
		err := w.targets.Scale(t.Context(), ref, replicas, replicas, nil)
		if failure, ok := errors.AsType[*scaling.Failure](err); !ok || failure.Reason != reason {
			t.Fatalf("got %v, want %s", err, reason)
		}
		if text := err.Error(); strings.Contains(text, "scale ") || !strings.HasPrefix(text, string(reason)+": ") {
			t.Errorf("it says %q", text)
		}
	}
}

// The watch may be behind our own writes: they are known without it.
func TestWhatWeWroteIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Clock", true)
	for _, o := range []client.Object{w.deployment(t, "shop", 0), w.custom(t, "Clock", "shop", 0)} {
		ref := w.ref("apps/v1", "Deployment", "shop")
		if _, ok := o.(*unstructured.Unstructured); ok {
			ref = w.ref("test.example.com/v1", "Clock", "shop")
		}
		f := w.follow(t, ref)
		f.untilSpec(t, 0)
		thaw := w.wire.delay()
		for _, replicas := range []int32{2, 0, 1, 0, 3} {
			minimum := int32(-1)
			if replicas == 0 {
				minimum = 0
			}
			if err := w.targets.Scale(t.Context(), ref, minimum, replicas, nil); err != nil {
				t.Fatal(err)
			}
			if s := w.targets.State(ref); s.Spec != replicas || s.Settled {
				t.Errorf("%s was scaled to %d, and is %+v", ref, replicas, s)
			}
		}
		thaw()
		if err := w.patch(t.Context(), o, `{"spec":{"replicas":7,"size":{"count":7}}}`); err != nil {
			t.Fatal(err)
		}
		f.untilSpec(t, 7)
	}
}

func TestATargetThatNobodyFollowsIsScaled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Unwatched", true)
	d := w.deployment(t, "shop", 0)
	u := w.custom(t, "Unwatched", "shop", 0)
	for _, o := range []client.Object{d, u} {
		ref := w.ref("apps/v1", "Deployment", "shop")
		if o == u {
			ref = w.ref("test.example.com/v1", "Unwatched", "shop")
		}
		if err := w.targets.Scale(t.Context(), ref, -1, 1, nil); err != nil {
			t.Fatal(err)
		}
		if got := w.spec(t, o); got != 1 {
			t.Errorf("%s has %d, want 1", ref, got)
		}
	}
}

func TestWhatCannotBeScaledFailsForGoodAndSaysWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Stone", false)
	w.custom(t, "Stone", "shop", 0)
	for _, test := range []struct {
		apiVersion, kind, name string
		want                   scaling.Reason
		says                   string
	}{
		{"apps/v1", "Deployment", "missing", scaling.ReasonTargetMissing, "there is no Deployment " + w.namespace + "/missing"},
		{"test.example.com/v1", "Stone", "shop", scaling.ReasonNotScalable, "subresources.scale"},
		{"apps/v1", "DaemonSet", "shop", scaling.ReasonNotScalable, "no scale subresource"},
		{"v1", "Namespace", "shop", scaling.ReasonNotScalable, "not in a namespace"},
		{"test.example.com/v1", "Nothing", "shop", scaling.ReasonTargetMissing, "install its definition"},
		{"nowhere.example.com/v1", "Nothing", "shop", scaling.ReasonTargetMissing, "no kind Nothing of nowhere.example.com/v1"},
		{"a/b/c", "Nothing", "shop", scaling.ReasonTargetMissing, "group/version"},
	} {
		t.Run(test.apiVersion+" "+test.kind, func(t *testing.T) {
			ref := w.ref(test.apiVersion, test.kind, test.name)
			for range 2 { // unfollowed, then followed
				err := w.targets.Scale(t.Context(), ref, -1, 1, nil)
				failure, ok := errors.AsType[*scaling.Failure](err)
				if !ok || failure.Reason != test.want || !strings.Contains(failure.Message, test.says) {
					t.Errorf("got %v, want %s with %q", err, test.want, test.says)
				}
				w.follow(t, ref).untilFailure(t, string(test.want), test.says)
			}
		})
	}
}
