//go:build e2e

package e2e

import (
	"context"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/bench/cold/measure"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
	"github.com/dormouse-dev/dormouse/test/e2e/install"
)

// A release that looks at one namespace only, and may elsewhere only ask about callers, lives a whole life: it is installed, tested,
// upgraded and rolled back while requests are sent, and uninstalled. Nothing of it is left, and what slept is awake.
func TestAReleaseLeavesNothing(t *testing.T) {
	a := newAside(t)
	ctx := t.Context()
	site := a.site(t, "apps")
	options := install.Options{Release: "second", Namespace: "second", Image: env.image, Values: []string{"namespaces={apps}", "shutdownDelay=2s"}}
	site.Release = a.install(t, options)
	if _, err := a.helm.Run(ctx, "test", "second", "--namespace", "second", "--timeout=60s"); err != nil {
		t.Errorf("helm test: %v", err)
	}
	a.wantOnlyReviews(t, "second")

	if err := site.Deploy(ctx, measure.App{Name: "web", Period: 1}); err != nil {
		t.Fatal(err)
	}
	if err := site.Sleep(ctx, "web", "2s"); err != nil {
		t.Fatal(err)
	}
	byHost := clientOf(t, site.Release.HTTP)
	wantOK(t, "a service that sleeps", ask(ctx, byHost, "http://web.apps/"))

	// By both ways, since each has its own address of the activator.
	loads := []*load{
		startLoad(t, byHost, "http://web.apps/", 2),
		startLoad(t, clientOf(t, a.serviceAddress(t, "apps", "web-activator")), "http://web-activator/", 2),
	}
	a.run(t, append([]string{"upgrade", "second", a.helm.Chart, "--set=logLevel=debug"}, options.Arguments()...)...)
	a.wantArgument(t, site.Release, "--log-level=debug")
	a.run(t, "rollback", "second", "1", "--namespace=second", "--wait", "--timeout=90s")
	a.wantArgument(t, site.Release, "--log-level=info")
	for _, l := range loads {
		l.answered(t, 50)
		l.wantNoneLost(t)
	}

	a.awaitReplicas(t, "apps", "web", 0, "it is put to sleep again after the activator was replaced")
	a.run(t, "uninstall", "second", "--namespace=second", "--wait", "--timeout=120s")
	a.awaitReplicas(t, "apps", "web", 1, "what slept is awake after the release was uninstalled")
	a.wantNothingLeft(t, "second", "second", crdKept)
	var left v1alpha1.ElasticService
	if err := a.api.Get(ctx, client.ObjectKey{Namespace: "apps", Name: "web"}, &left); err != nil || len(left.Finalizers) > 0 {
		t.Errorf("with crds.keep an ElasticService stays, without a finalizer that nobody would remove: %v, %v", left.Finalizers, err)
	}

	// What stayed is taken up again, and a release that is told so takes it along.
	options.Values = append(options.Values, "crds.keep=false")
	site.Release = a.install(t, options)
	wantOK(t, "a service whose ElasticService stayed", ask(ctx, clientOf(t, site.Release.HTTP), "http://web.apps/"))
	a.run(t, "uninstall", "second", "--namespace=second", "--wait", "--timeout=120s")
	a.wantNothingLeft(t, "second", "second", nothingKept)
}

// aside is a cluster beside the one that the tests share, for those that install Dormouse themselves: two activators that
// look at the same namespaces are no installation that anybody wants.
type aside struct {
	*cluster.Cluster
	kube kubernetes.Interface
	api  client.WithWatch
	rest *rest.Config
	helm *install.Helm
}

// newAside brings up a cluster with the images. It goes with the test.
func newAside(t *testing.T) *aside {
	t.Helper()
	if env.own == nil {
		t.Skip("it brings up a cluster of its own, and KUBECONFIG tells to use another")
	}
	a := &aside{Cluster: cluster.Start(t, cluster.Options{APIPort: 6444, Ranges: keeper.Ranges{
		Node:     netip.MustParsePrefix("10.239.0.0/30"),
		Pods:     netip.MustParsePrefix("10.238.0.0/22"),
		Services: netip.MustParsePrefix("10.237.0.0/16"),
	}})}
	for _, archive := range []string{appArchive, activatorArchive} {
		if _, err := a.Load(t.Context(), archive); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if a.rest, err = clientcmd.BuildConfigFromFlags("", a.Kubeconfig()); err != nil {
		t.Fatal(err)
	}
	a.rest.WarningHandler = rest.NoWarnings{} // of kinds that are listed although nobody should use them
	if a.kube, a.api, err = measure.Connect(a.rest); err != nil {
		t.Fatal(err)
	}
	if a.helm, err = install.NewHelm(checkout, a.Kubeconfig(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return a
}

// site makes a namespace and returns it.
func (a *aside) site(t *testing.T, namespace string) *measure.Site {
	t.Helper()
	s := &measure.Site{Kube: a.kube, API: a.api, Namespace: namespace, AppImage: env.appImage}
	if err := s.MakeNamespace(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// install installs a release, and tells of its activators if the test fails or one of them was not well.
func (a *aside) install(t *testing.T, o install.Options) *install.Release {
	t.Helper()
	release, err := install.Install(t.Context(), a.helm, a.kube, o)
	if err != nil {
		install.Describe(t.Context(), a.kube, o.Namespace, 50, t.Output())
		t.Fatal(err)
	}
	if err := release.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch := install.NewWatch(release, a.kube)
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- watch.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-watched; err != nil {
			t.Error(err)
		}
		if err := watch.Report(t.Output()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			install.Describe(context.WithoutCancel(t.Context()), a.kube, release.Namespace, 50, t.Output())
		}
	})
	return release
}

// run runs helm.
func (a *aside) run(t *testing.T, args ...string) {
	t.Helper()
	began := time.Now()
	if _, err := a.helm.Run(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	t.Logf("helm %s took %.1f s", args[0], time.Since(began).Seconds())
}

// wantArgument fails the test unless the activators that are wanted now have an argument.
func (a *aside) wantArgument(t *testing.T, r *install.Release, argument string) {
	t.Helper()
	d, err := a.kube.AppsV1().Deployments(r.Namespace).Get(t.Context(), r.Service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if args := d.Spec.Template.Spec.Containers[0].Args; !strings.Contains(strings.Join(args, " ")+" ", argument+" ") {
		t.Errorf("the activator is started with %q; want %s", args, argument)
	}
	if d.Status.UpdatedReplicas != *d.Spec.Replicas || d.Status.AvailableReplicas < *d.Spec.Replicas {
		t.Errorf("helm did not wait for the activator: %+v", d.Status)
	}
}

// wantOnlyReviews fails the test if a release may do anything in the whole cluster but ask who a caller is, and what he may do.
func (a *aside) wantOnlyReviews(t *testing.T, release string) {
	t.Helper()
	own := metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release}
	roles, err := a.kube.RbacV1().ClusterRoles().List(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	bindings, err := a.kube.RbacV1().ClusterRoleBindings().List(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	if len(roles.Items) != 1 || len(bindings.Items) != 1 || bindings.Items[0].RoleRef.Name != roles.Items[0].Name {
		t.Fatalf("a release for one namespace has %d ClusterRoles and %d bindings of them; want one for reviews", len(roles.Items), len(bindings.Items))
	}
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
		{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
	}
	if got := roles.Items[0].Rules; !reflect.DeepEqual(got, want) {
		t.Errorf("a release for one namespace may in the whole cluster %v; want %v", got, want)
	}
}

// serviceAddress waits until a Service is there, and returns the address of its port, which is named http.
func (a *aside) serviceAddress(t *testing.T, namespace, name string) string {
	t.Helper()
	var s *corev1.Service
	eventually(t, "there is a Service "+name, func() (found bool) {
		var err error
		s, err = a.kube.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil
	})
	return s.Spec.ClusterIP + ":80"
}

// awaitReplicas waits until a Deployment is wished to have so many replicas.
func (a *aside) awaitReplicas(t *testing.T, namespace, name string, want int32, what string) {
	t.Helper()
	var d *appsv1.Deployment
	eventually(t, what, func() bool {
		var err error
		d, err = a.kube.AppsV1().Deployments(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && *d.Spec.Replicas == want
	})
}

// kept is what a release may leave.
type kept bool

const (
	crdKept     kept = true
	nothingKept kept = false
)

// wantNothingLeft fails the test unless all that a release made is gone within a minute.
func (a *aside) wantNothingLeft(t *testing.T, release, namespace string, keep kept) {
	t.Helper()
	if err := install.AwaitNothingLeft(t.Context(), a.rest, release, namespace, bool(keep)); err != nil {
		t.Error(err)
	}
}
