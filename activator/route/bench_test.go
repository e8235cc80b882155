package route_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
)

// many makes services, each with an exact host, a wildcard, a path on a host that all share, and a header.
func many(n int, options ...func(*scaling.Service)) []route.Rule[string] {
	rules := make([]route.Rule[string], n)
	for i := range rules {
		rules[i] = service(fmt.Sprintf("web/shop-%05d", i), i,
			hosts(fmt.Sprintf("shop-%05d.example.com", i), fmt.Sprintf("*.shop-%05d.example.com", i)),
			paths("shared.example.com", fmt.Sprintf("/services/shop-%05d", i)),
			headers(fmt.Sprintf("tenant-%05d.example.com", i), "/", scaling.HeaderMatch{Name: "X-Tenant", Value: "blue"}))
		for _, option := range options {
			option(rules[i].Service)
		}
	}
	return rules
}

func bare(s *scaling.Service)  { s.Routes = nil }
func apart(s *scaling.Service) { s.Key.Namespace = "ns-" + s.Key.Name }

// lookups asks for the nth of many in every way.
func lookups(n int) []request {
	want := fmt.Sprintf("web/shop-%05d", n)
	name := strings.TrimPrefix(want, "web/")
	return []request{
		{host: name + ".example.com", path: "/", want: want},
		{host: strings.ToUpper(name) + ".Example.COM.:8080", path: "/", want: want},
		{host: "a.b." + name + ".example.com", path: "/", want: want},
		{host: name + ".web.svc.cluster.local", path: "/", want: want},
		{host: "shared.example.com", path: "/services/" + name + "/and/some/more/segments", want: want},
		{host: fmt.Sprintf("tenant-%05d.example.com", n), path: "/", want: want},
		{host: "unknown.example.com", path: "/", want: ""},
		{host: strings.Repeat("a.", 120) + "example.org", path: "/", want: ""},
	}
}

func BenchmarkMatch(b *testing.B) {
	names := []string{"exact", "uppercase", "wildcard", "own-name", "path", "header", "unknown", "120-labels"}
	for _, n := range []int{1, 10_000} {
		table := build(b, many(n)...)
		header := http.Header{"X-Tenant": {"blue"}}
		for i, r := range lookups(n / 2) {
			b.Run(fmt.Sprintf("%s/services=%d", names[i], n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if got, _ := table.Match(r.host, r.path, header); got != r.want {
						b.Fatalf("leads to %q, want %q", got, r.want)
					}
				}
			})
		}
	}
}

// BenchmarkBuild is of 10,000 services.
func BenchmarkBuild(b *testing.B) {
	for name, rules := range map[string][]route.Rule[string]{"own-names": many(10_000, bare), "with-routes": many(10_000)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				route.Build(rules, route.Options{ClusterDomain: clusterDomain})
			}
		})
	}
}
