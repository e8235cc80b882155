package target

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
)

// An API server that has just started refuses everybody for a moment: it answers before it has read its roles. Who is held
// while it restarts must not be told that nothing can be done.
func TestARefusalThatPassesIsNoFailure(t *testing.T) {
	t.Parallel()
	const user = "activator-not-known-yet"
	w := newWorld(t, impersonate(user), func(w *world, o *cluster.Options) { o.Namespaces = []string{w.namespace} })
	w.deployment(t, "shop", 0)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	w.wire.meanwhile(func(r *http.Request) error {
		if strings.HasSuffix(r.URL.Path, "/deployments/shop/scale") {
			once()
		}
		return nil
	})
	scaled := make(chan error, 1)
	go func() { scaled <- w.targets.Scale(t.Context(), w.ref("apps/v1", "Deployment", "shop"), 0, 1, nil) }()
	<-asked
	w.grant(t, user, "scale",
		rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, Verbs: []string{"get", "update"}})
	if err := <-scaled; err != nil {
		t.Errorf("scale: %v; want it repeated when the rights are there", err)
	}
}
