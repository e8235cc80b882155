package target

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

func TestATargetIsKnownFromItsCreationToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Lamp", true)
	for _, kind := range []string{"Deployment", "Lamp"} {
		t.Run(kind, func(t *testing.T) {
			ref := w.ref("apps/v1", kind, "shop")
			if kind == "Lamp" {
				ref.APIVersion = "test.example.com/v1"
			}
			f := w.follow(t, ref)
			f.untilFailure(t, "TargetMissing", ref.String(), "spec.scaleTargetRef")
			var o client.Object
			var more, spec string
			if kind == "Lamp" {
				o, more, spec = w.custom(t, kind, "shop", 2), `{"spec":{"size":{"count":4}}}`, `{"spec":{"size":{"count":0}}}`
			} else {
				o, more, spec = w.deployment(t, "shop", 2), `{"spec":{"replicas":4}}`, `{"spec":{"replicas":0}}`
			}
			f.untilSpec(t, 2)
			if err := w.patch(t.Context(), o, more); err != nil {
				t.Fatal(err)
			}
			f.untilSpec(t, 4)
			if err := w.patch(t.Context(), o, spec); err != nil {
				t.Fatal(err)
			}
			f.untilSpec(t, 0)
			if err := w.admin.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			s := f.until(t, "is missing", func(s State) bool { return s.Failure != nil && s.Failure.Reason == scaling.ReasonTargetMissing })
			if s.Known || s.Spec != -1 {
				t.Errorf("what is gone is %+v, want that nothing is known", s)
			}
			// One of the same name is another one.
			if kind == "Lamp" {
				w.custom(t, kind, "shop", 3)
			} else {
				w.deployment(t, "shop", 3)
			}
			f.untilSpec(t, 3)
		})
	}
}

// A controller says what it has seen by numbers, or, as Argo's does, by their decimals.
func TestATargetIsSettledOnceItsControllerHasSeenTheSpec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.define(t, "Kettle", true)
	u := w.custom(t, "Kettle", "shop", 1)
	f := w.follow(t, w.ref("test.example.com/v1", "Kettle", "shop"))
	settled := func(want bool) func(State) bool {
		return func(s State) bool { return s.Known && s.Settled == want }
	}
	if s := f.untilSpec(t, 1); s.Settled {
		t.Error("a controller that never spoke has seen the spec")
	}
	status := func(merge string) {
		t.Helper()
		if err := w.admin.Status().Patch(t.Context(), u.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(merge))); err != nil {
			t.Fatal(err)
		}
	}
	status(`{"status":{"observedGeneration":1}}`)
	f.until(t, "is settled", settled(true))
	if err := w.patch(t.Context(), u, `{"spec":{"size":{"count":2}}}`); err != nil {
		t.Fatal(err)
	}
	f.until(t, "is not settled", settled(false))
	f.untilSpec(t, 2)
	status(`{"status":{"observedGeneration":"2"}}`)
	f.until(t, "is settled", settled(true))
}

// A scale that was read may be newer than the object that the watch shows: then its generation is not known yet.
func TestAScaleThatIsNewerThanItsObjectIsNotSettled(t *testing.T) {
	t.Parallel()
	o := &object{uid: "u", rv: "100", generation: 4, observed: 4}
	for rv, want := range map[string]bool{"99": true, "100": true, "101": false, "opaque": false} {
		e := &entry{kind: &kind{synced: true}, reading: reading{uid: "u", version: o.version(), rv: rv, spec: 2}}
		if s := e.compute(o); s.Settled != want || s.Spec != 2 {
			t.Errorf("a scale of version %s and an object of 100: %+v, want settled %t", rv, s, want)
		}
	}
}

func TestAKindThatIsInstalledLaterHealsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.ref("test.example.com/v1", "Late", "shop")
	f := w.follow(t, ref)
	f.untilFailure(t, "TargetMissing", "no kind Late")
	crd := w.define(t, "Late", false)
	w.custom(t, "Late", "shop", 1)
	f.untilFailure(t, "NotScalable", "no scale subresource")
	w.get(t, crd)
	selector := ".status.selector"
	crd.Spec.Versions[0].Subresources.Scale = &apiextensionsv1.CustomResourceSubresourceScale{
		SpecReplicasPath: ".spec.size.count", StatusReplicasPath: ".status.count", LabelSelectorPath: &selector,
	}
	if err := w.admin.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	f.untilSpec(t, 1)
	if err := w.admin.Delete(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	f.untilFailure(t, "TargetMissing")
}

// impersonate makes the Targets those of a user who has no rights but those granted.
func impersonate(user string) func(*world, *cluster.Options) {
	return func(_ *world, o *cluster.Options) { o.Config.Impersonate = rest.ImpersonationConfig{UserName: user} }
}

// grant gives a user rights in the world's namespace, by a Role.
func (w *world) grant(t *testing.T, user, name string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
	w.create(t, &rbacv1.Role{ObjectMeta: meta, Rules: rules})
	w.create(t, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	})
}

// With namespaces given, Roles are enough; without them the failure says what is missing.
func TestRightsThatAreMissingAreNamedAndHealOnceGranted(t *testing.T) {
	t.Parallel()
	const user = "activator-without-rights"
	w := newWorld(t, impersonate(user), func(w *world, o *cluster.Options) { o.Namespaces = []string{w.namespace} })
	w.define(t, "Vault", true)
	w.deployment(t, "shop", 2)
	w.custom(t, "Vault", "shop", 1)
	deployment, vault := w.ref("apps/v1", "Deployment", "shop"), w.ref("test.example.com/v1", "Vault", "shop")
	f, g := w.follow(t, deployment), w.follow(t, vault)
	f.untilFailure(t, "Forbidden", user, "list and watch on deployments", `"apps"`)
	g.untilFailure(t, "Forbidden", "list and watch on vaults", `"test.example.com"`)
	failsAs := func(ref Ref, word string) {
		t.Helper()
		err := w.targets.Scale(t.Context(), ref, -1, 5, nil)
		failure, ok := errors.AsType[*scaling.Failure](err)
		if !ok || failure.Reason != scaling.ReasonForbidden || !strings.Contains(failure.Message, word) {
			t.Errorf("scale: got %v, want Forbidden with %q", err, word)
		}
	}
	failsAs(deployment, "get and update on deployments/scale")

	w.grant(t, user, "watch",
		rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"test.example.com"}, Resources: []string{"vaults"}, Verbs: []string{"list", "watch"}})
	f.untilSpec(t, 2)
	g.untilFailure(t, "Forbidden", "get and update on vaults/scale")
	failsAs(deployment, "get and update on deployments/scale")

	w.grant(t, user, "scale",
		rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, Verbs: []string{"get", "update"}},
		rbacv1.PolicyRule{APIGroups: []string{"test.example.com"}, Resources: []string{"vaults/scale"}, Verbs: []string{"get", "update"}})
	g.untilSpec(t, 1)
	for _, ref := range []Ref{deployment, vault} {
		if err := w.targets.Scale(t.Context(), ref, -1, 3, nil); err != nil {
			t.Error(err)
		}
	}
	f.untilSpec(t, 3)
	g.untilSpec(t, 3)
}

// Rivals queue all their watches behind one that does not answer.
func TestAKindWhoseServerHangsDelaysNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wire.meanwhile(func(r *http.Request) error {
		if strings.Contains(r.URL.Path, "hangs.example.com") || strings.HasSuffix(r.URL.Path, "/statefulsets") {
			<-r.Context().Done()
			return r.Context().Err()
		}
		return nil
	})
	w.deployment(t, "shop", 1)
	d := w.deployment(t, "other", 0)
	hangs := w.follow(t, w.ref("hangs.example.com/v1", "Rollout", "shop"))
	also := w.follow(t, w.ref("apps/v1", "StatefulSet", "shop"))
	w.follow(t, w.ref("apps/v1", "Deployment", "shop")).untilSpec(t, 1)
	if err := w.targets.Scale(t.Context(), w.ref("apps/v1", "Deployment", "other"), -1, 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.spec(t, d); got != 1 {
		t.Errorf("it has %d, want 1", got)
	}
	for _, f := range []*followed{hangs, also} {
		if s := w.targets.State(f.ref); s != (State{Spec: -1}) {
			t.Errorf("%s is %+v, want that nothing is known, a failure neither", f.ref, s)
		}
	}
}

func TestOneWatchServesAKindAndEndsWithTheLastFollower(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deployment(t, "a", 1)
	w.deployment(t, "b", 2)
	ref := w.ref("apps/v1", "Deployment", "a")
	first := w.follow(t, ref)
	first.untilSpec(t, 1)
	var last *followed
	if requests := w.wire.during(func() {
		last = w.follow(t, w.ref("apps/v1", "Deployment", "b"))
		last.untilSpec(t, 2)
		second := w.follow(t, ref)
		second.untilSpec(t, 1)
		first.unfollow()
		first.unfollow() // once is enough
		second.until(t, "is still known", func(s State) bool { return s.Spec == 1 })
		second.unfollow()
	}); len(requests) != 0 {
		t.Errorf("it took %q, want no request more", requests)
	}
	if s := w.targets.State(ref); s != (State{Spec: -1}) {
		t.Errorf("one that nobody follows is %+v", s)
	}
	if n := w.wire.open(); n != 1 {
		t.Errorf("%d watches are open, want 1", n)
	}
	closed := w.wire.whenClosed()
	last.unfollow()
	<-closed
}

func TestEveryFollowerIsCalledAndNeverAfterItLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.deployment(t, "shop", 1)
	ref := w.ref("apps/v1", "Deployment", "shop")
	a, b := w.follow(t, ref), w.follow(t, ref)
	a.untilSpec(t, 1)
	b.untilSpec(t, 1)
	left := w.follow(t, ref)
	left.untilSpec(t, 1)
	left.unfollow()
	select {
	case <-left.changed:
	default:
	}
	if err := w.patch(t.Context(), d, `{"spec":{"replicas":2}}`); err != nil {
		t.Fatal(err)
	}
	a.untilSpec(t, 2)
	b.untilSpec(t, 2)
	if err := w.patch(context.WithoutCancel(t.Context()), d, `{"spec":{"replicas":3}}`); err != nil {
		t.Fatal(err)
	}
	a.untilSpec(t, 3)
	select {
	case <-left.changed:
		t.Error("a follower that left was called two changes later")
	default:
	}
}

// Whichever way the API server is away, what was known stays, nothing is final, and its return is noticed soon.
func TestAnAPIServerThatIsAwayIsNoFailure(t *testing.T) {
	t.Parallel()
	for what, err := range map[string]error{"refuses": syscall.ECONNREFUSED, "is not reached": syscall.EHOSTUNREACH} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.deployment(t, "shop", 1)
			ref := w.ref("apps/v1", "Deployment", "shop")
			f := w.follow(t, ref)
			f.untilSpec(t, 1)
			asked := make(chan struct{}, 100)
			w.wire.cut(func(*http.Request) error {
				select {
				case asked <- struct{}{}:
				default:
				}
				return err
			})
			for range 3 { // attempts to watch again
				<-asked
			}
			scaled := w.targets.Scale(t.Context(), ref, -1, 2, nil)
			if _, final := errors.AsType[*scaling.Failure](scaled); scaled == nil || final {
				t.Errorf("scale: got %v, want an error that may pass", scaled)
			}
			if err := w.patch(t.Context(), d, `{"spec":{"replicas":4}}`); err != nil {
				t.Fatal(err)
			}
			if s := w.targets.State(ref); !s.Known || s.Spec != 1 || s.Failure != nil {
				t.Errorf("it is %+v, want what was known last", s)
			}
			back := time.Now()
			w.wire.meanwhile(nil)
			f.untilSpec(t, 4)
			if took := time.Since(back); took > 5*time.Second {
				t.Errorf("its return was noticed after %v", took)
			}
		})
	}
}
