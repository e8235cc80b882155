package chart

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

// There is no node here for the hooks, which test/e2e has.
func TestTheDefinitionFollowsUpgradesAndRollbacksAndStays(t *testing.T) {
	t.Parallel()
	c, _, _ := plane(t, space, "web")
	kubeconfig := c.Kubeconfig()
	in := func(args ...string) []string { return append(args, "--namespace", space) }

	older := filepath.Join(t.TempDir(), "dormouse")
	for name, text := range read(t, chart(t)) {
		if name == crd {
			text = strings.Replace(text, "name: Last cold start", "name: As it was", 1)
		}
		path := filepath.Join(older, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must(t, kubeconfig, in("install", "dormouse", older)...)
	column(t, c, "As it was")
	kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/elasticservices.dormouse.dev")
	const shop = "{apiVersion: dormouse.dev/v1alpha1, kind: ElasticService, metadata: {name: shop, namespace: web}, spec: {service: {name: shop}, scaleTargetRef: {name: shop}}}"
	kubectl(t, c, shop, "create", "--filename", "-")

	must(t, kubeconfig, in("upgrade", "dormouse", chart(t))...)
	column(t, c, "Last cold start")
	must(t, kubeconfig, in("rollback", "dormouse", "1")...)
	column(t, c, "As it was")

	must(t, kubeconfig, in("uninstall", "dormouse", "--no-hooks")...)
	if got, want := left(t, c), []string{"customresourcedefinition.apiextensions.k8s.io/elasticservices.dormouse.dev"}; !slices.Equal(got, want) {
		t.Errorf("after it was uninstalled %q is there, want %q", got, want)
	}
	kubectl(t, c, "", "get", "elasticservice", "shop", "--namespace", "web")

	// The definition goes on being the release's. Another leaves it alone, and has to be told so.
	if _, err := helm(t.Context(), t, kubeconfig, in("install", "other", chart(t))...); err == nil || !strings.Contains(err.Error(), "elasticservices.dormouse.dev") {
		t.Errorf("another release installs the definition too: got %v, want it to be refused by name", err)
	}
	must(t, kubeconfig, in("install", "other", chart(t), "--set", "crds.install=false")...)
	must(t, kubeconfig, in("uninstall", "other", "--no-hooks")...)

	must(t, kubeconfig, in("install", "dormouse", chart(t))...)
	column(t, c, "Last cold start")
	kubectl(t, c, "", "get", "elasticservice", "shop", "--namespace", "web")
	must(t, kubeconfig, in("upgrade", "dormouse", chart(t), "--set", "crds.keep=false")...)
	must(t, kubeconfig, in("uninstall", "dormouse", "--no-hooks", "--wait")...)
	if got := left(t, c); len(got) > 0 {
		t.Errorf("after it was uninstalled with crds.keep false %q is there", got)
	}
}

// column fails the test unless the definition has a column that is called so.
func column(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	columns := kubectl(t, c, "", "get", "crd", "elasticservices.dormouse.dev", "--output=jsonpath={range .spec.versions[0].additionalPrinterColumns[*]}{.name}{'\\n'}{end}")
	if !slices.Contains(strings.Split(columns, "\n"), name) {
		t.Errorf("the definition has the columns %q, want one of them to be %q", columns, name)
	}
}

// left are the objects of every kind and namespace that belong to a release.
func left(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	list := func(args ...string) []string {
		out, err := c.Kubectl(t.Context(), append(args, "--output=name")...) // kubectl warns of kinds that are out of date
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out)
	}
	kinds := strings.Join(list("api-resources", "--verbs=list"), ",")
	objects := list("get", kinds, "--all-namespaces", "--selector=app.kubernetes.io/name=dormouse", "--ignore-not-found")
	return append(objects, list("get", "secrets", "--all-namespaces", "--selector=owner=helm")...)
}
