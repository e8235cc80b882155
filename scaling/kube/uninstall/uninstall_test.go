package uninstall

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

func TestNothingIsLeftAsleepAndNothingBehind(t *testing.T) {
	c := connect(t)
	makeDeployment(t, c, "shop", 0)
	makeDeployment(t, c, "left", 0)
	makeDeployment(t, c, "busy", 4)
	makeDeployment(t, c, "dormouse", 1)
	shop := makeResource(t, c, "shop", func(es *v1alpha1.ElasticService) { es.Status.WakeReplicas = 3 })
	makeResource(t, c, "left", func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = v1alpha1.DeleteLeave })
	makeResource(t, c, "busy", func(es *v1alpha1.ElasticService) {
		es.Status.WakeReplicas, es.Status.Phase, es.Status.ActivatorPort = 2, "Asleep", 10000
	})
	makeResource(t, c, "missing", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "nobody" })
	makeResource(t, c, "no-such-kind", func(es *v1alpha1.ElasticService) {
		es.Spec.ScaleTargetRef.APIVersion, es.Spec.ScaleTargetRef.Kind = "example.com/v1", "Nothing"
	})
	makeMirror(t, c, "shop", shop)
	makeMirror(t, c, "left", nil)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "dormouse"}}
	if _, err := c.Kube.CoordinationV1().Leases("default").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // a second time does no harm
		run(t, c)
	}

	for name, want := range map[string]int32{"shop": 3, "left": 0, "busy": 4, "dormouse": 0} {
		wantReplicas(t, c, name, want)
	}
	var all v1alpha1.ElasticServiceList
	if err := c.Client.List(t.Context(), &all); err != nil || len(all.Items) != 5 {
		t.Fatalf("got %d ElasticServices (%v), want all 5 to stay", len(all.Items), err)
	}
	for _, es := range all.Items {
		if len(es.Finalizers) > 0 {
			t.Errorf("%s has still the finalizers %v", es.Name, es.Finalizers)
		}
		if es.Status.Phase != "" || es.Status.ActivatorPort != 0 {
			t.Errorf("%s still says that it is %s, at port %d", es.Name, es.Status.Phase, es.Status.ActivatorPort)
		}
	}
	if _, err := c.Kube.CoordinationV1().Leases("default").Get(t.Context(), "dormouse", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the activators' Lease: got %v, want it gone", err)
	}
	if _, err := c.Kube.CoreV1().Services("default").Get(t.Context(), "shop-activator", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("shop-activator: got %v, want it gone", err)
	}
	if _, err := c.Kube.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "shop-activator-4", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("slice of shop-activator: got %v, want it gone", err)
	}
	if _, err := c.Kube.CoreV1().Services("default").Get(t.Context(), "left-activator", metav1.GetOptions{}); err != nil {
		t.Errorf("left-activator, which is somebody else's: got %v, want it untouched", err)
	}
}

// A person may have put it to zero.
func TestWhatNoActivatorHasTakenUpIsNotWoken(t *testing.T) {
	c := connect(t)
	for _, name := range []string{"new", "asleep"} {
		makeDeployment(t, c, name, 0)
	}
	makeResource(t, c, "new", func(es *v1alpha1.ElasticService) { es.Finalizers = nil })
	makeResource(t, c, "asleep", func(es *v1alpha1.ElasticService) { es.Finalizers, es.Status.Phase = nil, "Asleep" })
	run(t, c)
	wantReplicas(t, c, "new", 0)
	wantReplicas(t, c, "asleep", 1)
}

func TestATargetThatMayNotBeScaledKeepsNothing(t *testing.T) {
	c := connect(t)
	makeDeployment(t, c, "guarded", 0)
	makeDeployment(t, c, "shop", 0)
	guarded := makeResource(t, c, "guarded", func(*v1alpha1.ElasticService) {})
	makeResource(t, c, "shop", func(*v1alpha1.ElasticService) {})
	guard(t, c, "guarded")

	run(t, c)

	wantReplicas(t, c, "guarded", 0)
	wantReplicas(t, c, "shop", 1)
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(guarded), guarded); err != nil || len(guarded.Finalizers) > 0 {
		t.Errorf("it has still the finalizers %v (%v)", guarded.Finalizers, err)
	}
}

// Where namespaces are named, each has a Role of its own, which goes with it.
func TestANamespaceWithoutARoleDoesNotKeepTheOthersAsleep(t *testing.T) {
	c := connect(t)
	makeDeployment(t, c, "shop", 0)
	makeResource(t, c, "shop", func(*v1alpha1.ElasticService) {})
	allow(t, c, "default")
	config := rest.CopyConfig(c.Config)
	config.Impersonate.UserName = "dormouse"
	for _, namespaces := range [][]string{{"gone", "default"}, nil} {
		limited, err := cluster.Connect(cluster.Options{Config: config, Namespaces: namespaces})
		if err != nil {
			t.Fatal(err)
		}
		err = Run(t.Context(), limited, zap.NewNop(), types.NamespacedName{Namespace: "default", Name: "dormouse"}, "dormouse")
		if namespaces == nil && !apierrors.IsForbidden(err) {
			t.Errorf("who was to look at all namespaces, and may not, got %v", err)
		} else if namespaces != nil && err != nil {
			t.Error(err)
		}
	}
	wantReplicas(t, c, "shop", 1)
}

func TestPodsThatHaveEndedAreNotWaitedFor(t *testing.T) {
	c := connect(t)
	makeDeployment(t, c, "dormouse", 1)
	for _, phase := range []corev1.PodPhase{corev1.PodFailed, corev1.PodSucceeded} {
		pod := makePod(t, c, "dormouse-"+strings.ToLower(string(phase)))
		pod.Status.Phase = phase
		if err := c.Client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	run(t, c)
}

func TestActivatorsThatDoNotEndAreWaitedForInVain(t *testing.T) {
	c := connect(t)
	makeDeployment(t, c, "dormouse", 1)
	makePod(t, c, "dormouse-1")
	makeDeployment(t, c, "shop", 0)
	makeResource(t, c, "shop", func(*v1alpha1.ElasticService) {})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := Run(ctx, c, zap.NewNop(), types.NamespacedName{Namespace: "default", Name: "dormouse"}, "dormouse")
	if err == nil || !strings.Contains(err.Error(), "pods are still finishing") {
		t.Errorf("got %v, want to hear of the pods that are there", err)
	}
}

func TestAClusterWithoutTheDefinitionHasNothingToUninstall(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	run(t, connectTo(t, plane))
}

func connect(t *testing.T) *cluster.Cluster {
	t.Helper()
	t.Parallel()
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	if out, err := plane.Kubectl(t.Context(), "apply", "-f", "../../../charts/dormouse/files/crds"); err != nil {
		t.Fatalf("apply the definition: %v\n%s", err, out)
	}
	if out, err := plane.Kubectl(t.Context(), "wait", "--for=condition=Established", "crd", "elasticservices.dormouse.dev"); err != nil {
		t.Fatalf("wait for the definition: %v\n%s", err, out)
	}
	return connectTo(t, plane)
}

func connectTo(t *testing.T, plane *testcluster.Cluster) *cluster.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Connect(cluster.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func run(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Run(ctx, c, zap.NewNop(), types.NamespacedName{Namespace: "default", Name: "dormouse"}, "dormouse"); err != nil {
		t.Fatal(err)
	}
}

func wantReplicas(t *testing.T, c *cluster.Cluster, name string, want int32) {
	t.Helper()
	deployment, err := c.Kube.AppsV1().Deployments("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || *deployment.Spec.Replicas != want {
		t.Errorf("Deployment %s: got %v replicas (%v), want %d", name, *deployment.Spec.Replicas, err, want)
	}
}

// guard has the API server refuse to scale a Deployment, and waits until it does.
func guard(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				ResourceNames: []string{name},
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments/scale"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "it is guarded"}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "guard", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	for _, object := range []client.Object{policy, binding} {
		if err := c.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	one := []byte(`{"spec":{"replicas":1}}`)
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := c.Kube.AppsV1().Deployments("default").Patch(ctx, name, types.MergePatchType, one,
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "scale")
		return err != nil && strings.Contains(err.Error(), "guarded"), nil
	})
	if err != nil {
		t.Fatalf("the API server refuses nothing: %v", err)
	}
}

// allow lets the user dormouse do what is done in a namespace, and waits until it may.
func allow(t *testing.T, c *cluster.Cluster, namespace string) {
	t.Helper()
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dormouse"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}},
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dormouse"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "dormouse"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "dormouse"}},
	}
	for _, object := range []client.Object{role, binding} {
		if err := c.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "dormouse", ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Resource: "pods"},
	}}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		answer, err := c.Kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		return err == nil && answer.Status.Allowed, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func makePod(t *testing.T, c *cluster.Cluster, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "dormouse"}},
		Spec:       corev1.PodSpec{NodeName: "nowhere", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	if err := c.Client.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func makeDeployment(t *testing.T, c *cluster.Cluster, name string, replicas int32) {
	t.Helper()
	labels := map[string]string{"app": name}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Paused: true,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
			},
		},
	}
	if err := c.Client.Create(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
}

func makeResource(t *testing.T, c *cluster.Cluster, name string, change func(*v1alpha1.ElasticService)) *v1alpha1.ElasticService {
	t.Helper()
	es := &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.ElasticServiceSpec{
			Service: v1alpha1.ServiceReference{Name: name}, ScaleTargetRef: v1alpha1.ScaleTargetReference{Name: name},
		},
	}
	change(es)
	status := es.Status
	if err := c.Client.Create(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	es.Status = status
	if err := c.Client.Status().Update(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	return es
}

// makeMirror makes the Service <name>-activator and a slice, of a resource or of nobody.
func makeMirror(t *testing.T, c *cluster.Cluster, name string, owner *v1alpha1.ElasticService) {
	t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name + "-activator"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name + "-activator-4",
			Labels: map[string]string{discoveryv1.LabelServiceName: name + "-activator"},
		},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{},
	}
	if owner != nil {
		ref := *metav1.NewControllerRef(owner, v1alpha1.GroupVersion().WithKind("ElasticService"))
		service.OwnerReferences, slice.OwnerReferences = []metav1.OwnerReference{ref}, []metav1.OwnerReference{ref}
	}
	for _, object := range []client.Object{service, slice} {
		if err := c.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}
