package v1alpha1_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster"
)

// smallest is all that has to be said of a service.
const smallest = `
service: {name: shop}
scaleTargetRef: {name: shop}
`

func TestTheAPIServerKnowsElasticServices(t *testing.T) {
	c := cluster.Start(t, cluster.Options{ControlPlaneOnly: true})
	for _, args := range [][]string{
		{"apply", "--filename", "../../charts/dormouse/files/crds/dormouse.dev_elasticservices.yaml"},
		{"wait", "--for=condition=Established", "customresourcedefinition/elasticservices.dormouse.dev"},
	} {
		if out, err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatalf("kubectl %v: %v: %s", args, err, out)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	p := plane{t, c, client.Resource(v1alpha1.GroupVersion().WithResource("elasticservices")).Namespace("default")}
	t.Run("and fills in defaults", p.defaults)
	t.Run("and takes what is right", p.takes)
	t.Run("and refuses what is wrong, naming the field", p.refuses)
	t.Run("and keeps status and spec apart", p.parts)
	t.Run("and shows them at a glance", p.shows)
	t.Run("and explains them", p.explains)
}

type plane struct {
	*testing.T

	cluster *cluster.Cluster
	client  dynamic.ResourceInterface
}

// create asks for a resource with this spec, in YAML, and does not keep it.
func (p plane) create(t *testing.T, name, spec string) (*unstructured.Unstructured, error) {
	t.Helper()
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": "ElasticService",
		"metadata": map[string]any{"name": name}, "spec": fields,
	}}
	return p.client.Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: "Strict"})
}

func (p plane) defaults(t *testing.T) {
	got, err := p.create(t, "shop", smallest)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := yaml.Marshal(got.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	const want = `endpoint:
  maxConcurrency: 0
  protocol: Auto
hold:
  failFast: true
  maxRequests: 10000
  timeout: 2m
idle:
  after: 5m
  initial: false
onDelete: Wake
readiness:
  mode: Auto
replicas:
  max: 0
  min: 0
  wake: 0
scaleTargetRef:
  apiVersion: apps/v1
  kind: Deployment
  name: shop
service:
  name: shop
timeouts:
  dial: 1s
  idle: 0s
  responseHeader: 0s
  total: 0s
`
	if string(spec) != want {
		t.Errorf("the defaults are\n%s", spec)
	}
}

func (p plane) takes(t *testing.T) {
	for _, spec := range []string{
		"service: {name: shop, port: 80}",
		"service: {name: shop, port: http}",
		"service: {name: shop, port: 65535}",
		"scaleTargetRef: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: shop.v1}",
		"scaleTargetRef: {apiVersion: v1, kind: ReplicationController, name: 1-shop}",
		`routes: [{hosts: ["shop.example.com", "*.example.com", "Shop_1"], paths: ["/", "/api/%20"], headers: [{name: X-Tenant}, {name: "a", value: "b c"}]}]`,
		`routes: [{headers: [{name: X-Tenant}]}]`,
		"replicas: {min: 1, wake: 2, max: 2}",
		"replicas: {min: 3}",
		"replicas: {max: 1}",
		`idle: {after: "0s"}`,
		"idle: {after: 1h30m, initial: true}",
		"idle: {after: 1.5h}",
		`hold: {timeout: 0s, maxRequests: 0, failFast: false}`,
		"endpoint: {protocol: HTTPS, maxConcurrency: 1, tls: {serverName: a.test, caConfigMap: ca}}",
		"endpoint: {protocol: HTTPS, tls: {insecureSkipVerify: true}}",
		"endpoint: {tls: {}}",
		"timeouts: {dial: 100ms, responseHeader: 30s, idle: 5m, total: 1h}",
		"readiness: {mode: Endpoints}",
		"onDelete: Leave",
	} {
		if _, err := p.create(t, "shop", with(spec)); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	for _, name := range []string{"a", "shop-2", strings.Repeat("a", 53)} {
		if _, err := p.create(t, name, smallest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (p plane) refuses(t *testing.T) {
	for _, c := range []struct{ spec, field, says string }{
		{"service: {port: 80}", "spec.service.name", "Required"},
		{`service: {name: ""}`, "spec.service.name", "at least 1"},
		{"service: {name: shop, port: 0}", "spec.service", "a number from 1 to 65535"},
		{"service: {name: shop, port: 65536}", "spec.service", "a number from 1 to 65535"},
		{"service: {name: shop, port: HTTP}", "spec.service", "name of one of the Service's ports"},
		{"service: {name: shop, port: [1]}", "spec.service.port", "must be of type"},
		{"scaleTargetRef: {kind: Deployment}", "spec.scaleTargetRef.name", "Required"},
		{`scaleTargetRef: {name: shop, kind: ""}`, "spec.scaleTargetRef.kind", "at least 1"},
		{"scaleTargetRef: {name: shop, apiVersion: ../v1}", "spec.scaleTargetRef.apiVersion", "should match"},
		{"scaleTargetRef: {name: shop, apiVersion: apps/..}", "spec.scaleTargetRef.apiVersion", "should match"},
		{"scaleTargetRef: {name: shop, apiVersion: a/b/v1}", "spec.scaleTargetRef.apiVersion", "should match"},
		{"scaleTargetRef: {name: shop, apiVersion: apps/}", "spec.scaleTargetRef.apiVersion", "should match"},
		{"scaleTargetRef: {name: shop, apiVersion: apps%2fv1}", "spec.scaleTargetRef.apiVersion", "should match"},
		{"scaleTargetRef: {name: shop, kind: ../Deployment}", "spec.scaleTargetRef.kind", "should match"},
		{"scaleTargetRef: {name: ../shop}", "spec.scaleTargetRef.name", "should match"},
		{"endpoint: {tls: {caConfigMap: ../ca}}", "spec.endpoint.tls.caConfigMap", "should match"},
		{"routes: [{}]", "spec.routes[0]", "at least 1 properties"},
		{`routes: [{hosts: [""]}]`, "spec.routes[0].hosts[0]", "at least 1"},
		{`routes: [{hosts: ["a.test:80"]}]`, "spec.routes[0].hosts[0]", "should match"},
		{`routes: [{hosts: ["http://a.test"]}]`, "spec.routes[0].hosts[0]", "should match"},
		{`routes: [{hosts: ["a.*.test"]}]`, "spec.routes[0].hosts[0]", "should match"},
		{`routes: [{hosts: ["*"]}]`, "spec.routes[0].hosts[0]", "should match"},
		{`routes: [{paths: ["api"]}]`, "spec.routes[0].paths[0]", "should match"},
		{`routes: [{paths: ["/a?b"]}]`, "spec.routes[0].paths[0]", "should match"},
		{`routes: [{paths: ["/a#b"]}]`, "spec.routes[0].paths[0]", "should match"},
		{`routes: [{paths: ["/a b"]}]`, "spec.routes[0].paths[0]", "should match"},
		{`routes: [{headers: [{value: b}]}]`, "spec.routes[0].headers[0].name", "Required"},
		{`routes: [{headers: [{name: "a b"}]}]`, "spec.routes[0].headers[0].name", "should match"},
		{"replicas: {min: -1}", "spec.replicas.min", "greater than or equal to 0"},
		{"replicas: {min: 2, max: 1}", "spec.replicas", "at least min"},
		{"replicas: {wake: 2, max: 1}", "spec.replicas", "at least wake"},
		{"replicas: {min: 2, wake: 1}", "spec.replicas", "or at least min"},
		{"idle: {after: 5}", "spec.idle.after", "must be of type string"},
		{"idle: {after: soon}", "spec.idle.after", "should match"},
		{"idle: {after: -5s}", "spec.idle.after", "should match"},
		{"idle: {after: 5 m}", "spec.idle.after", "should match"},
		{"idle: {after: 99999999999999999999999h}", "spec.idle.after", ""},
		{"hold: {timeout: 1d}", "spec.hold.timeout", "should match"},
		{"hold: {maxRequests: -1}", "spec.hold.maxRequests", "greater than or equal to 0"},
		{"endpoint: {protocol: HTTP3}", "spec.endpoint.protocol", `"Auto", "HTTP1", "H2C", "HTTPS"`},
		{"endpoint: {maxConcurrency: -1}", "spec.endpoint.maxConcurrency", "greater than or equal to 0"},
		{"endpoint: {tls: {insecureSkipVerify: true, caConfigMap: ca}}", "spec.endpoint.tls", "leave one of them out"},
		{"timeouts: {dial: x}", "spec.timeouts.dial", "should match"},
		{"timeouts: {responseHeader: x}", "spec.timeouts.responseHeader", "should match"},
		{"timeouts: {idle: x}", "spec.timeouts.idle", "should match"},
		{"timeouts: {total: x}", "spec.timeouts.total", "should match"},
		{"readiness: {mode: Never}", "spec.readiness.mode", `"Auto", "Endpoints"`},
		{"onDelete: Forget", "spec.onDelete", `"Wake", "Leave"`},
	} {
		_, err := p.create(t, "shop", with(c.spec))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.field+":") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; it must name %s and say %q", c.spec, err, c.field, c.says)
		}
	}
	for _, spec := range []string{"holds: {}", "idle: {afer: 5m}", "routes: [{host: a}]", "endpoint: {tls: {caSecret: a}}"} {
		if _, err := p.create(t, "shop", with(spec)); err == nil || !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	for _, name := range []string{"1shop", "shop.a", strings.Repeat("a", 54)} {
		if _, err := p.create(t, name, smallest); err == nil || !strings.Contains(err.Error(), "at most 53 characters") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// parts: whoever may edit resources cannot say what Dormouse found, and Dormouse's status does not touch the spec.
func (p plane) parts(t *testing.T) {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`{apiVersion: dormouse.dev/v1alpha1, kind: ElasticService, metadata: {name: shop},
		spec: {service: {name: shop}, scaleTargetRef: {name: shop}}, status: {activatorPort: 10000}}`), &o.Object); err != nil {
		t.Fatal(err)
	}
	o, err := p.client.Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, found := o.Object["status"]; found {
		t.Errorf("it was made with a status: %v", o.Object["status"])
	}
	generation := o.GetGeneration()
	if err := unstructured.SetNestedField(o.Object, "Awake", "status", "phase"); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(o.Object, "1h", "spec", "idle", "after"); err != nil {
		t.Fatal(err)
	}
	if o, err = p.client.UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, _, _ := unstructured.NestedString(o.Object, "spec", "idle", "after"); after != "5m" || o.GetGeneration() != generation {
		t.Errorf("the status changed the spec: %v", o.Object)
	}
}

func (p plane) shows(t *testing.T) {
	out, err := p.cluster.Kubectl(t.Context(), "get", "esvc", "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"NAME", "PHASE", "REPLICAS", "READY", "TARGET", "LAST ACTIVE", "LAST COLD START", "AGE", "shop", "Awake"} {
		if !strings.Contains(out, word) {
			t.Errorf("kubectl get esvc does not show %s:\n%s", word, out)
		}
	}
	if out, err := p.cluster.Kubectl(t.Context(), "get", "all"); err != nil || !strings.Contains(out, "elasticservice.dormouse.dev/shop") {
		t.Errorf("kubectl get all: %v:\n%s", err, out)
	}
}

func (p plane) explains(t *testing.T) {
	for field, want := range map[string]string{
		"elasticservice":                      "sleep at zero replicas",
		"elasticservice.spec.idle.after":      "never put to sleep",
		"elasticservice.spec.hold.failFast":   "cannot start",
		"elasticservice.status.activatorPort": "port of every activator",
	} {
		out, err := p.cluster.Kubectl(t.Context(), "explain", field)
		if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("kubectl explain %s: %v:\n%s", field, err, out)
		}
	}
}

// with is the smallest spec with something put over it.
func with(spec string) string {
	name, _, _ := strings.Cut(spec, ":")
	var lines []string
	for line := range strings.Lines(smallest) {
		if !strings.HasPrefix(line, name+":") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(append(lines, spec), "\n")
}
