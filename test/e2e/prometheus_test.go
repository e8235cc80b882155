//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/test/promtest"
)

// A Prometheus that may read nothing but the pods of Dormouse's namespace finds every activator by itself, and learns of a
// cold start with how long it took and what it consisted of.
func TestPrometheusDiscoversTheActivators(t *testing.T) {
	t.Parallel()
	if env.own == nil {
		t.Skip("to scrape pods from here takes a cluster whose pods the host has routes to")
	}
	server := promtest.StartDiscovering(t, discovery(t))
	up := server.Await(t, `up{job="dormouse"} == 1`)
	pod, err := env.dormouse.Pod(t.Context(), env.client)
	if err != nil {
		t.Fatal(err)
	}
	if len(up) != 1 || up[0].Labels["pod"] != pod.Name {
		t.Errorf("it scrapes %v; want the pod %s only", up, pod.Name)
	}

	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	elastic(t, namespace, "web", nil)
	wantOK(t, "a service that sleeps", ask(t.Context(), toDormouse(t), urlOf(namespace, "web", "/")))

	own := `{namespace="` + namespace + `",service="web"`
	if ready := server.Await(t, `dormouse_cold_starts_total`+own+`,outcome="ready"}`); ready[0].Value != 1 {
		t.Errorf("it counts %v cold starts; want 1", ready[0].Value)
	}
	whole := server.Await(t, `dormouse_cold_start_duration_seconds_sum`+own+`}`)[0].Value
	parts := server.Await(t, `sum(dormouse_cold_start_phase_duration_seconds_sum`+own+`})`)[0].Value
	if whole <= 0 || whole > time.Minute.Seconds() || parts < whole-1e-6 || parts > whole+1e-6 {
		t.Errorf("the cold start took %v s, its phases %v s; want the same", whole, parts)
	}
	if build := server.Await(t, `dormouse_build_info`); build[0].Labels["version"] == "" {
		t.Errorf("it learns of no version: %v", build)
	}
}

// discovery is a scrape configuration that finds the activators as docs/metrics.md tells, as a ServiceAccount that may do
// no more than that.
func discovery(t *testing.T) string {
	t.Helper()
	ctx, namespace := t.Context(), env.dormouse.Namespace
	meta := metav1.ObjectMeta{Name: "e2e-prometheus", Namespace: namespace}
	for _, object := range []api.Object{
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: meta.Name, Namespace: namespace}},
		},
	} {
		createUntilTheEnd(t, object)
	}
	token, err := env.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, meta.Name,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("ask for a token: %v", err)
	}
	dir := t.TempDir()
	files := map[string][]byte{"token": []byte(token.Status.Token), "ca.crt": env.rest.CAData}
	if env.rest.CAData == nil {
		if files["ca.crt"], err = os.ReadFile(env.rest.CAFile); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// JSON is YAML.
	type m = map[string]any
	scrape, err := json.Marshal(m{
		"job_name": "dormouse", "honor_labels": true, // the metrics' namespace is the service's, not the activator's
		"kubernetes_sd_configs": []m{{
			"role": "pod", "api_server": env.rest.Host, "namespaces": m{"names": []string{namespace}},
			"authorization": m{"credentials_file": filepath.Join(dir, "token")},
			"tls_config":    m{"ca_file": filepath.Join(dir, "ca.crt")},
		}},
		"relabel_configs": []m{
			{"source_labels": []string{"__meta_kubernetes_pod_container_port_name"}, "action": "keep", "regex": "metrics"},
			{"source_labels": []string{"__meta_kubernetes_namespace"}, "target_label": "namespace"},
			{"source_labels": []string{"__meta_kubernetes_pod_name"}, "target_label": "pod"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(scrape)
}

// createUntilTheEnd makes an object that goes with the test.
func createUntilTheEnd(t *testing.T, object api.Object) {
	t.Helper()
	if err := env.api.Create(t.Context(), object); err != nil {
		t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
	t.Cleanup(func() {
		if err := env.api.Delete(context.WithoutCancel(t.Context()), object); err != nil {
			t.Errorf("delete %T %s: %v", object, object.GetName(), err)
		}
	})
}
