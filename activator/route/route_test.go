package route_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
)

// service makes one called "namespace/name", older than those that are made with a larger age.
func service(key string, age int, routes ...scaling.Route) route.Rule[string] {
	namespace, name, _ := strings.Cut(key, "/")
	return route.Rule[string]{Value: key, Service: &scaling.Service{
		Key: scaling.Key{Namespace: namespace, Name: name}, Routes: routes, Created: time.Unix(int64(age), 0),
	}}
}

func hosts(hosts ...string) scaling.Route { return scaling.Route{Hosts: hosts} }

func paths(host string, paths ...string) scaling.Route {
	return scaling.Route{Hosts: []string{host}, Paths: paths}
}

func headers(host, path string, headers ...scaling.HeaderMatch) scaling.Route {
	return scaling.Route{Hosts: []string{host}, Paths: []string{path}, Headers: headers}
}

// build fails the test on any conflict.
func build(t testing.TB, rules ...route.Rule[string]) *route.Table[string] {
	t.Helper()
	table, conflicts := route.Build(rules, route.Options{ClusterDomain: "cluster.local"})
	for _, c := range conflicts {
		t.Errorf("conflict: %v", c)
	}
	return table
}

type request struct {
	host, path string
	header     http.Header
	want       string // "" is no match
}

func check(t *testing.T, table *route.Table[string], requests ...request) {
	t.Helper()
	for _, r := range requests {
		got, ok := table.Match(r.host, r.path, r.header)
		if ok != (r.want != "") || got != r.want {
			t.Errorf("%q %q %v leads to %q, %v; want %q", r.host, r.path, r.header, got, ok, r.want)
		}
	}
}

func TestEmptyTableMatchesNothing(t *testing.T) {
	check(t, new(route.Table[string]), request{host: "app.test", path: "/"})
	check(t, build(t), request{host: "", path: "/"}, request{host: "app.test", path: "/"})
}

func TestServiceHasItsOwnNames(t *testing.T) {
	check(t, build(t, service("web/shop", 0)),
		request{host: "shop.web", path: "/", want: "web/shop"},
		request{host: "shop.web.svc", path: "/any/path", want: "web/shop"},
		request{host: "shop.web.svc.cluster.local", path: "*", want: "web/shop"},
		request{host: "SHOP.web.svc.cluster.local.:80", path: "/", want: "web/shop"},
		request{host: "shop", path: "/"},
		request{host: "shop.web.svc.cluster", path: "/"},
		request{host: "shop.web.svc.other.domain", path: "/"},
		request{host: "x.shop.web", path: "/"},
		request{host: "shop.other", path: "/"},
	)
}

func TestHostIgnoresCasePortAndTrailingDot(t *testing.T) {
	long := strings.Repeat("a.", 126) + "abc" // 255 bytes
	check(t, build(t, service("web/shop", 0, hosts("app.test", "*.wild.test", "[::1]", "::FFFF:1.2.3.4", "127.0.0.1", long))),
		request{host: "app.test", want: "web/shop"},
		request{host: "APP.Test", want: "web/shop"},
		request{host: "app.test.", want: "web/shop"},
		request{host: "app.test:8080", want: "web/shop"},
		request{host: "app.test:", want: "web/shop"},
		request{host: "app.test.:8080", want: "web/shop"},
		request{host: "X.WILD.test.:1", want: "web/shop"},
		request{host: "[::1]", want: "web/shop"},
		request{host: "[::1]:8080", want: "web/shop"},
		request{host: "::1", want: "web/shop"},
		request{host: "[::ffff:1.2.3.4]:1", want: "web/shop"},
		request{host: "127.0.0.1:80", want: "web/shop"},
		request{host: long, want: "web/shop"},
		request{host: long + ".:8080", want: "web/shop"},
		request{host: "app.test.."},
		request{host: "app.test:80x"},
		request{host: "app.test:-1"},
		request{host: "[::1]8080"},
		request{host: "[::1"},
		request{host: "app.test/"},
		request{host: "app.tes"},
		request{host: ""},
		request{host: "."},
	)
}

func TestHostTooLongOrMalformedMatchesNothingAtAll(t *testing.T) {
	check(t, build(t, service("web/any", 0, scaling.Route{}, hosts("*.test"))),
		request{host: strings.Repeat("a", 250) + ".test", want: "web/any"}, // 255 bytes
		request{host: strings.Repeat("a", 251) + ".test"},
		request{host: strings.Repeat("a", 1<<20)},
		request{host: "a.test:x"},
		request{host: "[a.test"},
		request{host: ".a.test"},
		request{host: ".test"},
		request{host: "", want: "web/any"},
		request{host: ":80", want: "web/any"},
	)
}

func TestExactHostBeforeLongestWildcardBeforeAny(t *testing.T) {
	check(t, build(t,
		service("web/any", 0, scaling.Route{}),
		service("web/wide", 1, hosts("*.c")),
		service("web/wild", 2, hosts("*.b.c")),
		service("web/exact", 3, hosts("a.b.c"))),
		request{host: "a.b.c", want: "web/exact"},
		request{host: "b.b.c", want: "web/wild"},
		request{host: "x.a.b.c", want: "web/wild"},
		request{host: "b.c", want: "web/wide"},
		request{host: "ab.c", want: "web/wide"},
		request{host: "c", want: "web/any"},
		request{host: "xb.d", want: "web/any"},
		request{host: "", want: "web/any"},
		request{host: "nope.web", want: "web/any"},
	)
}

func TestPathIsAPrefixOfWholeSegments(t *testing.T) {
	check(t, build(t,
		service("web/api", 0, paths("app.test", "/api")),
		service("web/users", 1, paths("app.test", "/api/users/", "/exact%20path"))),
		request{host: "app.test", path: "/api", want: "web/api"},
		request{host: "app.test", path: "/api/", want: "web/api"},
		request{host: "app.test", path: "/api/x", want: "web/api"},
		request{host: "app.test", path: "/api//users", want: "web/api"},
		request{host: "app.test", path: "/api/user", want: "web/api"},
		request{host: "app.test", path: "/api/users2/long/tail", want: "web/api"},
		request{host: "app.test", path: "/api/users", want: "web/users"},
		request{host: "app.test", path: "/api/users/1", want: "web/users"},
		request{host: "app.test", path: "/exact%20path/1", want: "web/users"},
		request{host: "app.test", path: "/apix"},
		request{host: "app.test", path: "/API"},
		request{host: "app.test", path: "/ap"},
		request{host: "app.test", path: "//api"},
		request{host: "app.test", path: "api"},
		request{host: "app.test", path: "/exact path/1"},
		request{host: "app.test", path: "/"},
		request{host: "app.test", path: "*"},
		request{host: "app.test", path: ""},
	)
}

func TestPathIsNeverDecodedToMatch(t *testing.T) {
	check(t, build(t,
		service("web/all", 0, hosts("app.test")),
		service("web/api", 1, paths("app.test", "/api"))),
		request{host: "app.test", path: "/%61pi", want: "web/all"},
		request{host: "app.test", path: "/api%2Fx", want: "web/all"},
		request{host: "app.test", path: "/api;v=1/x", want: "web/all"},
		request{host: "app.test", path: "//api/x", want: "web/all"},
		// Whatever these decode to is below /api.
		request{host: "app.test", path: "/api/group%2Fproject", want: "web/api"},
		request{host: "app.test", path: "/api//x", want: "web/api"},
		request{host: "app.test", path: "/api/x;v=1", want: "web/api"},
		request{host: "app.test", path: "/api/%41", want: "web/api"},
	)
}

func TestPathWithDotSegmentsTakesOnlyRoutesWithoutPath(t *testing.T) {
	table := build(t,
		service("web/all", 0, hosts("app.test")),
		service("web/root", 1, paths("root.test", "/")),
		service("web/api", 2, paths("app.test", "/api"), paths("root.test", "/api"), paths("api.test", "/api")))
	for _, path := range []string{
		"/api/../admin", "/api/..", "/api/./x", "/api/.", "/./api", "/../api", "/api/x/../y", "/api/%2e%2e/admin", "/api/.%2E/admin",
		"/api/..%2fadmin", "/api/x%2F..%2F..%2Fadmin", `/api/..\admin`, `/api/..%5Cadmin`, `/api/x\..\..\admin`, "/api/..;/admin",
		"/api/..;x=1", "/api/..%3b/admin", "/api//../admin", "/api/%z/../admin", "/api/%%2e/.%2e",
	} {
		check(t, table,
			request{host: "app.test", path: path, want: "web/all"},
			request{host: "root.test", path: path, want: "web/root"},
			request{host: "api.test", path: path})
	}
	for _, path := range []string{
		"/api/...", "/api/..x", "/api/x..", "/api/.well-known", "/api/x.", "/api/%2e%2e%2e", "/api/;..", "/api/%252e%252e", "/api/%2", "/api/.%2",
		"/api/..%z0/", "/api/%", "/api/.%00",
	} {
		check(t, table, request{host: "app.test", path: path, want: "web/api"})
	}
}

func TestHeadersMustAllMatchAndMoreOfThemWin(t *testing.T) {
	blue := scaling.HeaderMatch{Name: "x-tenant", Value: "blue"}
	present := scaling.HeaderMatch{Name: "X-TENANT"}
	beta := scaling.HeaderMatch{Name: "X-Beta", Value: "1"}
	table := build(t,
		service("web/plain", 0, hosts("app.test")),
		service("web/present", 2, headers("app.test", "/", present)),
		service("web/blue", 1, headers("app.test", "/", blue)),
		service("web/both", 3, headers("app.test", "/", blue, beta)))
	check(t, table,
		request{"app.test", "/", nil, "web/plain"},
		request{"app.test", "/", http.Header{"X-Tenant": {"blue"}}, "web/blue"},
		request{"app.test", "/", http.Header{"X-Tenant": {"red"}}, "web/present"},
		request{"app.test", "/", http.Header{"X-Tenant": {""}}, "web/present"},
		request{"app.test", "/", http.Header{"X-Tenant": {"Blue"}}, "web/present"},
		request{"app.test", "/", http.Header{"X-Tenant": {"red", "blue"}}, "web/blue"},
		request{"app.test", "/", http.Header{"X-Tenant": {"blue"}, "X-Beta": {"1"}}, "web/both"},
		request{"app.test", "/", http.Header{"X-Tenant": {"blue"}, "X-Beta": {"2"}}, "web/blue"},
		request{"app.test", "/", http.Header{"X-Beta": {"1"}}, "web/plain"},
	)
}

func TestHeaderNamedTwiceCountsOnce(t *testing.T) {
	a := scaling.HeaderMatch{Name: "X-A", Value: "1"}
	b := scaling.HeaderMatch{Name: "X-B", Value: "1"}
	check(t, build(t, service("web/old", 0, headers("app.test", "/", b)), service("web/new", 1, headers("app.test", "/", a, a))),
		request{"app.test", "/", http.Header{"X-A": {"1"}, "X-B": {"1"}}, "web/old"})
}

func TestFallsBackToTheNextBestRoute(t *testing.T) {
	beta := scaling.HeaderMatch{Name: "X-Beta"}
	table := build(t,
		service("web/any", 0, scaling.Route{Paths: []string{"/any"}}),
		service("web/wide", 1, hosts("*.test")),
		service("web/wild", 2, paths("*.app.test", "/api")),
		service("web/exact", 3, paths("a.app.test", "/api/users")),
		service("web/beta", 4, headers("a.app.test", "/api/users/me", beta)))
	check(t, table,
		request{"a.app.test", "/api/users/me", http.Header{"X-Beta": {"1"}}, "web/beta"},
		request{"a.app.test", "/api/users/me", nil, "web/exact"}, // to a shorter path
		request{"a.app.test", "/api/x", nil, "web/wild"},         // to a wildcard
		request{"a.app.test", "/", nil, "web/wide"},              // to a shorter wildcard
		request{"b.app.test", "/any", nil, "web/wide"},
		request{"other", "/any", nil, "web/any"},
		request{"other", "/", nil, ""},
	)
	headersOnly := build(t,
		service("web/any", 0, scaling.Route{}),
		service("web/beta", 1, headers("app.test", "/", beta)))
	check(t, headersOnly,
		request{"app.test", "/", http.Header{"X-Beta": {"1"}}, "web/beta"},
		request{"app.test", "/", nil, "web/any"}, // to the routes without hosts
	)
}

func TestLongestPathBeforeMoreHeadersBeforeAge(t *testing.T) {
	a, b := scaling.HeaderMatch{Name: "A"}, scaling.HeaderMatch{Name: "B"}
	both := http.Header{"A": {""}, "B": {""}}
	check(t, build(t,
		service("web/headers", 0, headers("app.test", "/", a, b)),
		service("web/new", 2, headers("app.test", "/api", a)),
		service("web/old", 1, headers("app.test", "/api", b))),
		request{"app.test", "/api/x", both, "web/old"},
		request{"app.test", "/x", both, "web/headers"},
	)
	check(t, build(t, // of the same age: as given
		service("web/first", 0, headers("app.test", "/", b)),
		service("web/second", 0, headers("app.test", "/", a))),
		request{"app.test", "/", both, "web/first"},
	)
}

func TestBuildLeavesItsArgumentsAlone(t *testing.T) {
	match := []scaling.HeaderMatch{{Name: "x-b"}, {Name: "x-a"}}
	rules := []route.Rule[string]{service("web/new", 1, scaling.Route{Headers: match}), service("web/old", 0)}
	route.Build(rules, route.Options{})
	if rules[0].Value != "web/new" || match[0].Name != "x-b" {
		t.Errorf("rules %v, headers %v", rules, match)
	}
}
