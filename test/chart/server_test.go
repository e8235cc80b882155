package chart

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// kubeconform would compare manifests with schemas that are published for each version of Kubernetes. A real API server
// compares them with its own, unknown and doubled fields included, and knows what no schema says: that a selector fits its
// pods' labels, that a quantity is one, which pods the standard "restricted" admits.
func TestAnAPIServerTakesWhatTheChartMakes(t *testing.T) {
	t.Parallel()
	c, _, _ := plane(t, space, "web", "blog")
	for _, standard := range []string{"enforce", "warn"} {
		kubectl(t, c, "", "label", "namespace", space, "pod-security.kubernetes.io/"+standard+"=restricted")
	}
	kubectl(t, c, "", "create", "--filename", "testdata/monitoring.crds.yaml")
	kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "--filename", "testdata/monitoring.crds.yaml")

	for _, name := range slices.Sorted(maps.Keys(sets(t))) {
		t.Run(name, func(t *testing.T) {
			out := kubectl(t, c, render(t, "--values", sets(t)[name]), "create", "--dry-run=server", "--validate=strict", "--filename", "-")
			if strings.Contains(out, "Warning") {
				t.Error(out)
			}
		})
	}
	t.Run("its notes' example", func(t *testing.T) {
		kubectl(t, c, read(t, chart(t))[crd], "create", "--filename", "-")
		kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/elasticservices.dormouse.dev")
		_, example, ok := strings.Cut(notes(t), "<<YAML\n")
		example, _, ended := strings.Cut(example, "\n  YAML\n")
		if !ok || !ended {
			t.Fatal("the notes have no example")
		}
		kubectl(t, c, strings.ReplaceAll("\n"+example, "\n  ", "\n"), "create", "--dry-run=server", "--validate=strict", "--filename", "-")
	})
}

func TestNotesTellTheNextStep(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		args []string
		want []string
		not  []string
	}{
		{
			nil,
			[]string{"helm test dormouse --namespace dormouse", "service/dormouse 8080:80", `"Host: shop.default"`},
			[]string{"NOTE", "Only these namespaces"},
		},
		{
			[]string{"--set", "namespaces={web,blog},replicas=1,crds.install=false,fullnameOverride=sleepy,service.ports.http=8000"},
			[]string{"service/sleepy 8080:8000", `"Host: shop.web"`, "web, blog", "there is one activator", "crds.install is false"},
			nil,
		},
	} {
		got := notes(t, x.args...)
		for _, want := range x.want {
			if !strings.Contains(got, want) {
				t.Errorf("with %q the notes lack %q:\n%s", x.args, want, got)
			}
		}
		for _, not := range x.not {
			if strings.Contains(got, not) {
				t.Errorf("with %q the notes have %q:\n%s", x.args, not, got)
			}
		}
	}
}

// notes are what Helm prints after it has installed the chart.
func notes(t *testing.T, args ...string) string {
	t.Helper()
	out := must(t, os.DevNull, append([]string{"install", "dormouse", chart(t), "--namespace", space, "--dry-run=client"}, args...)...)
	_, text, ok := strings.Cut(out, "\nNOTES:\n")
	if !ok {
		t.Fatalf("there are no notes in %q", out)
	}
	return text
}
