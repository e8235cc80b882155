package cluster

import (
	"slices"
	"testing"

	"go.uber.org/zap"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

func TestANamespaceThatMayNotBeReadIsLeftOut(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"default", "kube-public"} {
		mayRead(t, config, namespace)
	}
	they := rest.CopyConfig(config)
	they.Impersonate.UserName = "activator"

	for _, test := range []struct{ ask, want []string }{
		{[]string{"default", "kube-public"}, []string{"default", "kube-public"}},
		{[]string{"default", "kube-system", "kube-public"}, []string{"default", "kube-public"}},
		{[]string{"kube-system"}, []string{"kube-system"}}, // it will say itself why it is never ready
		{nil, nil},
	} {
		got, err := Readable(t.Context(), they, test.ask, zap.NewNop())
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("of %v: got %v (%v), want %v", test.ask, got, err, test.want)
		}
	}

	they.Host = "https://127.0.0.1:1"
	if got, err := Readable(t.Context(), they, []string{"default"}, zap.NewNop()); err != nil || len(got) != 1 {
		t.Errorf("without an API server: got %v (%v), want all", got, err)
	}
}

func mayRead(t *testing.T, config *rest.Config, namespace string) {
	t.Helper()
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Name: "activator"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"dormouse.dev"}, Resources: []string{"elasticservices"}, Verbs: []string{"list"},
	}}}
	if _, err := kube.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "activator"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "activator"}},
	}
	if _, err := kube.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
