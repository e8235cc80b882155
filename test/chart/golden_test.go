package chart

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What each set of values makes, but for the generated definition, is written down, so that a change of a template shows
// all that it changes. Write it anew with: go test ./test/chart -run TestTemplates -rewrite.
func TestTemplatesMakeWhatIsWrittenDown(t *testing.T) {
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			got, path := written(render(t, "--values", values)), filepath.Join("testdata", name+".golden.yaml")
			if flag.Lookup("rewrite").Value.String() == "true" {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if line, g, w := difference(got, string(want)); line > 0 {
				t.Errorf("%s:%d: got %q, want %q", path, line, g, w)
			}
		})
	}
}

func TestHelmLintFindsNothing(t *testing.T) {
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			out := must(t, os.DevNull, "lint", "--strict", "--values", values, chart(t))
			if strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
				t.Error(out)
			}
		})
	}
}

// Helm reads the definition and writes it again; nothing may get lost on the way.
func TestTheDefinitionIsTheGeneratedOne(t *testing.T) {
	generated := parse(t, read(t, chart(t))[crd])[0]
	for _, keep := range []string{"true", "false"} {
		installed := parse(t, render(t, "--show-only", "templates/crd.yaml", "--set", "crds.keep="+keep))[0]
		annotations := installed.GetAnnotations()
		if policy, want := annotations["helm.sh/resource-policy"], map[string]string{"true": "keep", "false": ""}[keep]; policy != want {
			t.Errorf("crds.keep %s: got the policy %q, want %q", keep, policy, want)
		}
		delete(annotations, "helm.sh/resource-policy")
		installed.SetAnnotations(annotations)
		installed.SetLabels(nil)
		if !equality.Semantic.DeepEqual(installed, generated) {
			t.Error("the definition that the chart installs is not the generated one")
		}
	}
	for _, object := range parse(t, render(t, "--set", "crds.install=false")) {
		if object.GetKind() == "CustomResourceDefinition" {
			t.Error("with crds.install false the definition is installed")
		}
	}
}

// No pod but an activator's may be taken for one: members are counted by these labels.
func TestOnlyActivatorsAreSelected(t *testing.T) {
	for name, values := range sets(t) {
		for _, object := range parse(t, render(t, "--values", values)) {
			labels := object.GetLabels() // of a Pod
			switch object.GetKind() {
			case "Deployment", "Job":
				labels, _, _ = unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
			case "Pod":
			default:
				continue
			}
			if got, want := labels["app.kubernetes.io/component"] == "activator", object.GetKind() == "Deployment"; got != want {
				t.Errorf("%s: the pods of %s %s are selected as activators: %t, want %t", name, object.GetKind(), object.GetName(), got, want)
			}
		}
	}
}

// A release or a namespace may be called as YAML writes a number or a boolean, and a release's name may have dots in it.
func TestAnyNameIsOne(t *testing.T) {
	for release, want := range map[string]string{
		"123": "dormouse-123", "1e3": "dormouse-1e3", "true": "true-dormouse", "web.dormouse": "web-dormouse", "a.b": "a-b-dormouse",
	} {
		out := must(t, os.DevNull, "template", release, chart(t), "--namespace", "456", "--set-string", "namespaces={789},serviceAccount.name=1")
		for _, object := range parse(t, out) {
			if object.GetKind() == "CustomResourceDefinition" {
				continue
			}
			name, _, _ := strings.Cut(object.GetName(), want)
			if name != "" && object.GetName() != "1" {
				t.Errorf("%s: %s %q is not called after %s", release, object.GetKind(), object.GetName(), want)
			}
			ofAll := strings.HasPrefix(object.GetKind(), "ClusterRole")
			if got := object.GetNamespace(); got != "456" && got != "789" && !ofAll {
				t.Errorf("%s: %s %s is in the namespace %q", release, object.GetKind(), object.GetName(), got)
			}
			if got := object.GetLabels()["app.kubernetes.io/instance"]; got != release {
				t.Errorf("%s: %s %s is labelled as of the release %q", release, object.GetKind(), object.GetName(), got)
			}
		}
		if selector := "--peers-selector=app.kubernetes.io/name=dormouse,app.kubernetes.io/instance=" + release + ",app.kubernetes.io/component=activator\n"; !strings.Contains(out, selector) {
			t.Errorf("%s: activators are not told how to find each other: %s", release, selector)
		}
	}
}

func TestWhatEndsByItselfHasNoProxyOfAMesh(t *testing.T) {
	for _, object := range parse(t, render(t)) {
		labels, annotations := object.GetLabels(), object.GetAnnotations() // of a Pod
		switch object.GetKind() {
		case "Job":
			labels, _, _ = unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
			annotations, _, _ = unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "annotations")
		case "Pod":
		default:
			continue
		}
		if labels["sidecar.istio.io/inject"] != "false" || annotations["linkerd.io/inject"] != "disabled" {
			t.Errorf("a mesh would add a proxy to the pods of %s %s: %v, %v", object.GetKind(), object.GetName(), labels, annotations)
		}
	}
}

func TestPodsOutliveTheirDrain(t *testing.T) {
	for _, x := range []struct {
		delay, drain string
		want         int64
	}{
		{"5s", "5m", 5 + 300 + 60},
		{"0s", "1ms", 61},
		{"1500ms", "1h1m1.2s", 2 + 3662 + 60},
	} {
		deployment := parse(t, render(t, "--show-only", "templates/deployment.yaml", "--set", "shutdownDelay="+x.delay, "--set", "drainTimeout="+x.drain))[0]
		got, _, err := unstructured.NestedInt64(deployment.Object, "spec", "template", "spec", "terminationGracePeriodSeconds")
		if err != nil || got != x.want {
			t.Errorf("after a delay of %s and a drain of %s: got %d s, want %d (%v)", x.delay, x.drain, got, x.want, err)
		}
	}
}

func TestMemoryIsSharedOutBelowTheLimit(t *testing.T) {
	for limit, want := range map[string]string{
		"1Gi": "966367641", "512Mi": "483183820", "0.5Gi": "483183820", "1G": "900000000", "2000000000": "1800000000", "1048576k": "943718400",
	} {
		out := render(t, "--show-only", "templates/deployment.yaml", "--set", "resources.limits.memory="+limit)
		if !strings.Contains(out, "name: GOMEMLIMIT\n              value: \""+want+"\"\n") {
			t.Errorf("with a limit of %s: GOMEMLIMIT is not %s", limit, want)
		}
	}
	if out := render(t, "--set", "resources.limits=null"); strings.Contains(out, "GOMEMLIMIT") {
		t.Error("without a limit there is a GOMEMLIMIT")
	}
}

// written is a manifest without the definition.
func written(manifest string) string {
	var documents []string
	for _, document := range strings.SplitAfter(manifest, "\n---\n") {
		if !strings.Contains(document, "# Source: dormouse/templates/crd.yaml\n") {
			documents = append(documents, document)
		}
	}
	return strings.Join(documents, "")
}

// difference is the first line, counted from 1, in which two texts differ; 0: none.
func difference(got, want string) (line int, g, w string) {
	gs, ws := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(gs), len(ws)) {
		if g, w = at(gs, i), at(ws, i); g != w {
			return i + 1, g, w
		}
	}
	return 0, "", ""
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(the end)"
}
