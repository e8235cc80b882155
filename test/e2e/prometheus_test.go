//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/test/promtest"
)

// A Prometheus finds every activator by itself, and learns of a cold start with how long it took and what it consisted of.
//
// It runs on the host, which has routes into the cluster's network and asks the cluster's name server, as a pod would. It
// finds the activators by DNS since Debian's build has no discovery by the API server (kubernetes_sd_configs); that is what
// the chart's ServiceMonitor and PodMonitor are for.
func TestPrometheusDiscoversTheActivators(t *testing.T) {
	t.Parallel()
	if env.own == nil {
		t.Skip("to scrape pods from here takes a cluster whose pods the host has routes to")
	}
	server := promtest.StartDiscovering(t, discovery(t), nameServer(t))
	// Another test may be replacing the activator.
	if up := server.Await(t, `up{job="dormouse"} == 1`); !strings.HasSuffix(up[0].Labels["instance"], ":9090") {
		t.Errorf("it scrapes %v; want an activator's port 9090", up)
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

// discovery is a scrape configuration that finds the activators by the name of their Service for metrics, which has a
// record for each.
func discovery(t *testing.T) string {
	t.Helper()
	// JSON is YAML.
	type m = map[string]any
	scrape, err := json.Marshal(m{
		"job_name": "dormouse", "honor_labels": true, // the metrics' namespace is the service's, not the activator's
		"dns_sd_configs": []m{{
			"names":            []string{"_metrics._tcp.dormouse-metrics." + env.dormouse.Namespace + ".svc.cluster.local"},
			"refresh_interval": "1s",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(scrape)
}

// nameServer is the address of the cluster's name server.
func nameServer(t *testing.T) string {
	t.Helper()
	dns, err := env.client.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dns.Spec.ClusterIP
}
