package target

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

// fullQuota leaves the namespace no room for a pod.
func (w *world) fullQuota(t *testing.T) *corev1.ResourceQuota {
	t.Helper()
	q := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	w.create(t, q)
	return q
}

// A Deployment tells of refusals in a condition, a StatefulSet only by Events.
func TestPodsRefusedByQuotaAreAFailureOnceNoOldOneIsLeft(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			quota := w.fullQuota(t)
			if kind == "Deployment" {
				w.deployment(t, "shop", 0)
			} else {
				w.statefulSet(t, "shop", 0)
			}
			ref := w.ref("apps/v1", kind, "shop")
			f := w.follow(t, ref)
			f.untilSpec(t, 0)
			w.targets.Awaken(ref, true)
			w.targets.Awaken(ref, true) // as good as once
			w.targets.PodsLeft(ref, 1)  // an old one, that may hold the quota
			if err := w.targets.Scale(t.Context(), ref, -1, 1, nil); err != nil {
				t.Fatal(err)
			}
			f.untilSpec(t, 1)
			f.heard(t)
			if s := w.targets.State(ref); s.Failure != nil {
				t.Errorf("an old pod is left, and it fails: %v", s.Failure)
			}
			w.targets.PodsLeft(ref, 0)
			f.untilFailure(t, "Quota", "exceeded quota: none")
			if s := w.targets.State(ref); !s.Known || s.Spec != 1 {
				t.Errorf("it is %+v, want that its spec is known all the same", s)
			}

			w.targets.PodsLeft(ref, 1)
			f.untilSpec(t, 1)
			w.targets.PodsLeft(ref, 0)
			if kind == "Deployment" {
				// It says so until a pod was created.
				f.untilFailure(t, "Quota", "exceeded quota: none")
				if err := w.admin.Delete(t.Context(), quota); err != nil {
					t.Fatal(err)
				}
				f.untilSpec(t, 1)
			}
			w.targets.Awaken(ref, false)
			if s := w.targets.State(ref); s.Failure != nil {
				t.Errorf("nobody wakes it, and it fails: %v", s.Failure)
			}
		})
	}
}

// heard waits until a refusal was heard of. It has no effect that shows yet.
func (f *followed) heard(t *testing.T) {
	t.Helper()
	for {
		f.targets.mu.Lock()
		message := f.targets.entries[f.ref].wake.message()
		f.targets.mu.Unlock()
		if message != "" {
			return
		}
		if !pause(t.Context(), firstPause/50, nil) {
			t.Fatal("no refusal was heard of")
		}
	}
}

func TestAWakeThatIsRefusedNothingFailsForNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deployment(t, "shop", 0)
	ref := w.ref("apps/v1", "Deployment", "shop")
	w.targets.Awaken(ref, true) // of one that nobody follows: ignored
	w.targets.PodsLeft(ref, 0)
	f := w.follow(t, ref)
	f.untilSpec(t, 0)
	w.targets.PodsLeft(ref, 0) // of one that is not woken: ignored
	w.targets.Awaken(ref, true)
	w.targets.PodsLeft(ref, 0)
	if err := w.targets.Scale(t.Context(), ref, -1, 1, nil); err != nil {
		t.Fatal(err)
	}
	f.until(t, "is settled at 1", func(s State) bool { return s.Spec == 1 && s.Settled })
	pause(t.Context(), 2*w.targets.patience, nil)
	if s := w.targets.State(ref); s.Failure != nil {
		t.Errorf("it has the failure %v", s.Failure)
	}
	w.targets.Awaken(ref, false)
	w.targets.Awaken(ref, false)
}

func TestAKindThatIsMissingIsLookedForAtOnceWhenItIsWoken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.ref("test.example.com/v1", "Sudden", "shop")
	f := w.follow(t, ref)
	f.untilFailure(t, string(scaling.ReasonTargetMissing))
	w.define(t, "Sudden", true)
	w.custom(t, "Sudden", "shop", 0)
	w.targets.Awaken(ref, true)
	f.untilSpec(t, 0)
}
