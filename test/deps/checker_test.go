package deps

import (
	"strings"
	"testing"
)

// A rule that a slip of the pen made toothless would look like one that is kept, so each is broken here once for every
// package that it binds and every import that it forbids.
func TestEveryRuleBites(t *testing.T) {
	for _, r := range rules() {
		if r.why == "" {
			t.Errorf("%v may not import %v, and nobody says why", r.from, r.to)
		}
		for _, from := range r.from {
			for _, to := range r.to {
				from, to := below(from), below(to)
				if got := (graph{from: {"fmt", to}}).violations(r); len(got) != 1 || !strings.Contains(got[0], to+": "+r.why) {
					t.Errorf("%s imports %s: got %q, want the one reason %q", from, to, got, r.why)
				}
				through := graph{from: {"example.com/between"}, "example.com/between": {to}}
				if got := through.violations(r); len(got) > 0 != r.deep {
					t.Errorf("%s reaches %s through another package: got %q, want deep %t", from, to, got, r.deep)
				}
			}
		}
		for _, except := range r.except {
			if got := (graph{below(except): {below(r.to[0])}}).violations(r); len(got) != 0 {
				t.Errorf("%s is excepted: got %q", except, got)
			}
		}
	}
}

func TestTheArrowsOfTheArchitectureAreAllowed(t *testing.T) {
	g := graph{}
	for from, to := range map[string]string{
		"./cmd/activator":             "./activator ./elastiserver ./elastiserver/peers ./elastiserver/peers/stream ./scaling/kube/election ./scaling ./scaling/local ./scaling/kube ./metrics os/signal github.com/spf13/cobra",
		"./activator":                 "./activator/httpx ./activator/http1 ./activator/route ./scaling ./metrics net/http",
		"./activator/httpx":           "./activator/service ./activator/problem ./activator/tcp ./activator/route ./activator/hold ./scaling net/http",
		"./activator/http1":           "./activator/service ./activator/problem ./activator/tcp ./activator/route ./activator/hold ./scaling net",
		"./activator/service":         "./activator/hold ./activator/balance ./scaling ./metrics crypto/tls",
		"./activator/problem":         "./activator/hold ./scaling ./metrics net/http",
		"./activator/hold":            "./activator/balance ./scaling ./metrics",
		"./elastiserver":              "./scaling ./metrics net/http",
		"./elastiserver/peers":        "./scaling ./metrics golang.org/x/sys/unix",
		"./elastiserver/peers/stream": "./elastiserver/peers net/http crypto/tls",
		"./scaling/kube/election":     "k8s.io/client-go/tools/leaderelection",
		"./scaling/kube/trust":        "./scaling ./scaling/v1alpha1 net/http k8s.io/api/authentication/v1",
		"./scaling":                   "./metrics",
		"./scaling/local":             "./scaling ./scaling/probe os/exec",
		"./scaling/kube":              "./scaling ./scaling/probe ./scaling/v1alpha1 k8s.io/client-go/rest",
		"./scaling/probe":             "./scaling google.golang.org/grpc net/http",
		"./scaling/v1alpha1":          "k8s.io/apimachinery/pkg/runtime",
		"./metrics":                   "github.com/prometheus/client_golang/prometheus",
		"./test/app":                  "flag os/signal google.golang.org/grpc",
		"./activator/routing":         "k8s.io.example.com/x", // Names that only begin like a forbidden one.
		"k8s.io.example.com/x":        "flagship",
	} {
		for imported := range strings.FieldsSeq(to) {
			g[expand(from)] = append(g[expand(from)], expand(imported))
		}
	}
	for _, r := range rules() {
		for _, line := range g.violations(r) {
			t.Error(line)
		}
	}
}

// below is a package that a pattern stands for, under the named one where the pattern reaches so far.
func below(pattern string) string {
	return strings.Replace(expand(pattern), "...", "x", 1)
}
