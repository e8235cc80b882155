package chart

import (
	"os/exec"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A flag that the activator does not have, or a value that it cannot read, would only show in a pod that keeps crashing.
func TestTheActivatorKnowsWhatTheChartTellsIt(t *testing.T) {
	t.Parallel()
	activator := build(t)
	for name, values := range sets(t) {
		commands := 0
		for _, object := range parse(t, render(t, "--values", values)) {
			spec := []string{"spec", "template", "spec", "containers"}
			if object.GetKind() == "Pod" {
				spec = []string{"spec", "containers"}
			}
			containers, _, err := unstructured.NestedSlice(object.Object, spec...)
			if err != nil {
				t.Fatal(err)
			}
			for _, container := range containers {
				container, _ := container.(map[string]any)
				args, _, err := unstructured.NestedStringSlice(container, "args")
				if err != nil || len(args) == 0 {
					t.Fatalf("%s: %s %s: no arguments: %v", name, object.GetKind(), object.GetName(), err)
				}
				commands++
				// What comes before --help is read, and nothing is done.
				out, err := exec.CommandContext(t.Context(), activator, append(slices.Clone(args), "--help")...).CombinedOutput()
				if err != nil {
					t.Errorf("%s: activator %q: %v: %s", name, args, err, out)
				}
			}
		}
		if commands != 3 {
			t.Errorf("%s: %d commands were tried, want those of the Deployment, the test and the Job", name, commands)
		}
	}
}
