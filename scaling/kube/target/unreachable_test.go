package target

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// hurry makes targets unreachable soon.
func (w *world) hurry() {
	w.targets.mu.Lock()
	defer w.targets.mu.Unlock()
	w.targets.silence = 300 * time.Millisecond
}

func (f *followed) untilUnreachable(t *testing.T, word string) {
	t.Helper()
	s := f.until(t, "is unreachable", func(s State) bool { return strings.Contains(s.Unreachable, word) && s.Unreachable != "" })
	if s.Known || s.Failure != nil {
		t.Errorf("%s is unreachable and %+v", f.ref, s)
	}
}

// Nobody's readiness depends on a stranger's server.
func TestATargetWhoseServerHasTroubleIsUnreachableAfterAWhileAndHeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hurry()
	w.define(t, "Parcel", true)
	broken := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1.broken.example.com"},
		"spec": map[string]any{
			"group": "broken.example.com", "version": "v1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"insecureSkipTLSVerify": true, "service": map[string]any{"name": "nobody", "namespace": "default"},
		},
	}}
	w.create(t, broken)
	t.Cleanup(func() {
		if err := w.admin.Delete(context.WithoutCancel(t.Context()), broken); err != nil {
			t.Error(err)
		}
	})
	mended := make(chan struct{})
	w.wire.meanwhile(func(r *http.Request) error {
		if r.URL.Path == "/apis/hangs.example.com/v1" || strings.HasSuffix(r.URL.Path, "/statefulsets") ||
			strings.HasSuffix(r.URL.Path, "/parcels/shop/scale") {
			select {
			case <-mended:
			case <-r.Context().Done():
			}
		}
		return r.Context().Err()
	})
	w.statefulSet(t, "shop", 1)
	w.custom(t, "Parcel", "shop", 1)

	w.follow(t, w.ref("broken.example.com/v1", "Rollout", "shop")).untilUnreachable(t, "ask what broken.example.com/v1 has")
	w.follow(t, w.ref("hangs.example.com/v1", "Rollout", "shop")).untilUnreachable(t, "not answered for 300ms")
	listed, read := w.follow(t, w.ref("apps/v1", "StatefulSet", "shop")), w.follow(t, w.ref("test.example.com/v1", "Parcel", "shop"))
	listed.untilUnreachable(t, "not answered")
	read.untilUnreachable(t, "not answered")

	close(mended)
	for _, f := range []*followed{listed, read} {
		if s := f.untilSpec(t, 1); s.Unreachable != "" {
			t.Errorf("%s is known, and %+v", f.ref, s)
		}
	}
}

func TestAnAPIVersionThatLeadsElsewhereIsNoKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range []string{"../v1", "apps/..", "apps/v1?x", "", "APPS/v1", "apps/"} {
		if requests := w.wire.during(func() {
			w.follow(t, w.ref(version, "Deployment", "shop")).untilFailure(t, string(scaling.ReasonTargetMissing), "group/version")
		}); len(requests) != 0 {
			t.Errorf("%q led to %q", version, requests)
		}
	}
}

func TestTheRightToAskForKindsIsNamedWhereItIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *world, o *cluster.Options) {
		o.Config.Impersonate.UserName = "system:anonymous"
		o.Config.Impersonate.Groups = []string{"system:unauthenticated"}
	})
	ref := w.ref("test.example.com/v1", "Widget", "shop")
	w.follow(t, ref).untilFailure(t, string(scaling.ReasonForbidden), "/apis/test.example.com/v1", "system:discovery")
}
