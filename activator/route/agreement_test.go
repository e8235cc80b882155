package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
)

// random configurations come from few words, so that everything collides.
type random struct{ *rand.Rand }

func (r random) pick(words ...string) string { return words[r.IntN(len(words))] }

func (r random) pattern() string {
	labels := make([]string, 1+r.IntN(4))
	for i := range labels {
		labels[i] = r.pick("a", "b", "C", "svc", "web")
	}
	pattern := strings.Join(labels, ".")
	if r.IntN(8) == 0 {
		pattern += ".svc." + clusterDomain
	}
	if r.IntN(3) == 0 {
		return "*." + pattern
	}
	return pattern
}

func (r random) path() string {
	return "/" + r.pick("", "a", "a/", "a/b", "a/b/c", "b", "a%2Fb", "a//b")
}

func (r random) requestPath() string {
	path := ""
	for range r.IntN(4) {
		path += r.pick("/", "/", "%2F", "\\") + r.pick("a", "b", "c", "", "a", "b", ".", "%2E.", "..;x", "ab")
	}
	return path
}

func (r random) header() scaling.HeaderMatch {
	return scaling.HeaderMatch{Name: r.pick("X-A", "x-a", "X-B", "x-c"), Value: r.pick("", "", "1", "2")}
}

func (r random) rules() (rules []route.Rule[string], claims map[string]string) {
	for n := range 1 + r.IntN(8) {
		rule := service(r.pick("a", "b", "web", "svc")+"/"+r.pick("a", "b", "svc")+fmt.Sprint(n), 0)
		rule.Service.Created = time.Unix(int64(r.IntN(4)), 0)
		for range r.IntN(4) {
			var one scaling.Route
			for range r.IntN(3) {
				one.Hosts = append(one.Hosts, r.pattern())
			}
			for range r.IntN(3) {
				one.Paths = append(one.Paths, r.path())
			}
			names := map[string]bool{}
			for range r.IntN(3) {
				if h := r.header(); !names[strings.ToLower(h.Name)] {
					names[strings.ToLower(h.Name)] = true
					one.Headers = append(one.Headers, h)
				}
			}
			rule.Service.Routes = append(rule.Service.Routes, one)
		}
		rules = append(rules, rule)
	}
	claims = map[string]string{}
	for range r.IntN(3) {
		claims[strings.ToLower(r.pick(r.pattern(), r.pattern(), "*"))] = r.pick("a", "b", "web")
	}
	return rules, claims
}

func (r random) request(rules []route.Rule[string]) (host, path string, header http.Header) {
	key := rules[r.IntN(len(rules))].Service.Key
	host = r.pick(
		strings.TrimPrefix(r.pattern(), "*."), "x."+strings.TrimPrefix(r.pattern(), "*."),
		key.Name+"."+key.Namespace+r.pick("", ".svc", ".svc."+clusterDomain), "x."+key.Namespace+r.pick("", ".svc"), "")
	host += r.pick("", "", ".", ":80", ".:80")
	header = http.Header{}
	for range r.IntN(4) {
		h := r.header()
		header.Add(h.Name, h.Value)
	}
	return host, r.requestPath(), header
}

func TestTableAgreesWithTheModel(t *testing.T) {
	matched := map[bool]int{}
	for seed := range uint64(1000) {
		r := random{rand.New(rand.NewPCG(seed, 0))}
		rules, claims := r.rules()
		table, conflicts := route.Build(rules, route.Options{ClusterDomain: clusterDomain, Claims: claims})
		m, refused := newModel(rules, claims)
		if len(conflicts) != refused {
			t.Fatalf("seed %d: %d conflicts, want %d: %v", seed, len(conflicts), refused, conflicts)
		}
		for range 50 {
			host, path, header := r.request(rules)
			got, ok := table.Match(host, path, header)
			want, wantOK := m.match(host, path, header)
			if got != want || ok != wantOK {
				t.Fatalf("seed %d: %q %q %v leads to %q, want %q", seed, host, path, header, got, want)
			}
			matched[ok]++
		}
	}
	if matched[true] < 10_000 || matched[false] < 10_000 {
		t.Errorf("requests by outcome: %v; too one-sided to prove much", matched)
	}
}

func fuzzRules() []route.Rule[string] {
	beta := scaling.HeaderMatch{Name: "X-Beta"}
	return []route.Rule[string]{
		service("web/shop", 0, hosts("app.test", "::1", "*.app.test"), paths("app.test", "/api", "/api/v1"), headers("app.test", "/api/v1", beta)),
		service("web/any", 1, scaling.Route{}),
		service("other/x", 2, paths("*.test", "/a"), hosts("*.b.c")),
	}
}

func compare(t *testing.T, rules []route.Rule[string], claims map[string]string, host, path string, header http.Header) {
	table, _ := route.Build(rules, route.Options{ClusterDomain: clusterDomain, Claims: claims})
	m, _ := newModel(rules, claims)
	got, ok := table.Match(host, path, header)
	if want, wantOK := m.match(host, path, header); got != want || ok != wantOK {
		t.Errorf("%q %q %v leads to %q, want %q", host, path, header, got, want)
	}
}

func FuzzHost(f *testing.F) {
	for _, host := range []string{"app.test", "APP.test.:80", "[::1]:80", "x.app.test", "shop.web.svc.cluster.local", "a..b.c", ":x", "[", "é.b.c"} {
		f.Add(host)
	}
	rules := fuzzRules()
	f.Fuzz(func(t *testing.T, host string) { compare(t, rules, nil, host, "/api", nil) })
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{"/api/v1/x", "/api/../x", "/api/%2e%2E", "/api/..%2f", "/api/..;/x", `/api\..`, "*", "", "/api/%z/..", "/api/%"} {
		f.Add(path)
	}
	rules := fuzzRules()
	f.Fuzz(func(t *testing.T, path string) { compare(t, rules, nil, "app.test", path, nil) })
}

// FuzzMatch makes the configuration and a request from the seed, and a request from the rest.
func FuzzMatch(f *testing.F) {
	f.Add(uint64(1), "a.b.web", "/a/b", "X-A", "1")
	f.Fuzz(func(t *testing.T, seed uint64, host, path, name, value string) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		rules, claims := r.rules()
		header := http.Header{}
		header.Add(name, value)
		compare(t, rules, claims, host, path, header)
		host, _, _ = r.request(rules)
		compare(t, rules, claims, host, path, header)
	})
}
