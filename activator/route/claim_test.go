package route_test

import (
	"slices"
	"testing"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
)

func key(namespace, name string) scaling.Key { return scaling.Key{Namespace: namespace, Name: name} }

// buildWith compares the conflicts, and returns the table.
func buildWith(t *testing.T, claims map[string]string, want []route.Conflict, rules ...route.Rule[string]) *route.Table[string] {
	t.Helper()
	table, got := route.Build(rules, route.Options{ClusterDomain: "Cluster.Local.", Claims: claims})
	if !slices.Equal(got, want) {
		t.Errorf("conflicts:\n%v\nwant:\n%v", got, want)
	}
	return table
}

func TestHostBelongsToTheOldestNamespaceWhateverThePath(t *testing.T) {
	table := buildWith(t, nil,
		[]route.Conflict{{Service: key("b", "new"), Host: "app.test", Owner: key("a", "old"), Reason: route.Claimed}},
		service("b/new", 2, scaling.Route{Hosts: []string{"APP.test"}, Paths: []string{"/b"}}, hosts("b.test")),
		service("a/old", 1, paths("app.test", "/a")),
		service("a/newest", 3, paths("app.test", "/b/c")),
	)
	check(t, table,
		request{host: "app.test", path: "/a", want: "a/old"},
		request{host: "app.test", path: "/b"},
		request{host: "app.test", path: "/b/c", want: "a/newest"},
		request{host: "b.test", path: "/", want: "b/new"}, // its other routes stay
	)
}

func TestServicesOfOneAgeClaimInTheOrderGiven(t *testing.T) {
	check(t, buildWith(t, nil,
		[]route.Conflict{{Service: key("b", "x"), Host: "app.test", Owner: key("a", "x"), Reason: route.Claimed}},
		service("a/x", 0, hosts("app.test")), service("b/x", 0, hosts("app.test"))),
		request{host: "app.test", want: "a/x"})
}

func TestWildcardOwnsWhatIsBelowIt(t *testing.T) {
	check(t, buildWith(t, nil,
		[]route.Conflict{
			{Service: key("b", "new"), Host: "shop.app.test", Owner: key("a", "old"), Reason: route.Claimed},
			{Service: key("b", "new"), Host: "*.shop.app.test", Owner: key("a", "old"), Reason: route.Claimed},
		},
		service("a/old", 1, paths("*.app.test", "/a")),
		service("b/new", 2, hosts("shop.app.test", "*.shop.app.test", "app.test"))),
		request{host: "shop.app.test", path: "/a", want: "a/old"},
		request{host: "shop.app.test", path: "/b"},
		request{host: "app.test", path: "/", want: "b/new"})
}

func TestNewWildcardLeavesOlderHostsToTheirOwners(t *testing.T) {
	check(t, buildWith(t, nil, nil,
		service("a/exact", 1, paths("shop.app.test", "/a")),
		service("b/inner", 2, paths("*.in.app.test", "/b")),
		service("c/wild", 3, hosts("*.app.test")),
		service("a/own", 4, hosts("*.test"))),
		request{host: "shop.app.test", path: "/a", want: "a/exact"},
		request{host: "shop.app.test", path: "/x", want: "a/own"}, // past c's wildcard
		request{host: "x.in.app.test", path: "/b", want: "b/inner"},
		request{host: "x.in.app.test", path: "/x"}, // neither c nor a
		request{host: "in.app.test", path: "/", want: "c/wild"},
		request{host: "other.test", path: "/", want: "a/own"},
	)
}

func TestRoutesWithoutHostsBelongToOneNamespaceAndOwnNothingElse(t *testing.T) {
	check(t, buildWith(t, nil,
		[]route.Conflict{{Service: key("b", "any"), Host: "*", Owner: key("a", "any"), Reason: route.Claimed}},
		service("a/any", 1, scaling.Route{}),
		service("b/any", 2, scaling.Route{Paths: []string{"/b"}}, paths("b.test", "/b"))),
		request{host: "other", path: "/b", want: "a/any"},
		request{host: "b.test", path: "/b", want: "b/any"},
		request{host: "b.test", path: "/x"}, // b's host does not fall back to a
		request{host: "nope.b", path: "/"},
	)
}

func TestNamesOfANamespaceAreForItsServicesOnly(t *testing.T) {
	thief := service("thief/x", 1, hosts("shop.web", "other.web", "*.web", "other.web.svc", "*.web.svc", "pod.shop.web.svc.cluster.local",
		"x.unknown.svc", "*.svc", "*.svc.cluster.local", "*.cluster.local", "www.example.web", "web"))
	reserved := func(host, namespace string) route.Conflict {
		return route.Conflict{Service: key("thief", "x"), Host: host, Owner: key(namespace, ""), Reason: route.Reserved}
	}
	table := buildWith(t, nil,
		[]route.Conflict{
			{Service: key("thief", "x"), Host: "shop.web", Owner: key("web", "shop"), Reason: route.Claimed},
			reserved("other.web", "web"),
			reserved("*.web", "web"),
			reserved("other.web.svc", "web"),
			reserved("*.web.svc", "web"),
			reserved("pod.shop.web.svc.cluster.local", "web"),
			reserved("x.unknown.svc", ""),
			reserved("*.svc", ""),
			reserved("*.svc.cluster.local", ""),
		},
		thief, service("web/shop", 2))
	check(t, table,
		request{host: "shop.web", want: "web/shop"},
		request{host: "other.web"},
		request{host: "nope.web.svc.cluster.local"},
		request{host: "nope.unknown.svc.cluster.local"},
		request{host: "nope.cluster.local", want: "thief/x"},
		request{host: "www.example.web", want: "thief/x"},
		request{host: "web", want: "thief/x"},
		request{host: "web.svc"},
	)
}

func TestNamespaceMayNameItsOwnNames(t *testing.T) {
	check(t, buildWith(t, nil,
		[]route.Conflict{{Service: key("a", "x"), Host: "b.c.web", Owner: key("web", "shop"), Reason: route.Claimed}},
		service("web/shop", 1, hosts("*.web", "*.web.svc", "shop.web")),
		service("web/blog", 2, paths("shop.web", "/blog")),
		service("a/x", 3, hosts("b.c.web"))),
		request{host: "shop.web", path: "/", want: "web/shop"},
		request{host: "shop.web", path: "/blog/1", want: "web/blog"},
		request{host: "any.web", path: "/", want: "web/shop"},
		request{host: "any.at.all.web", path: "/", want: "web/shop"},
		request{host: "any.web.svc", path: "/", want: "web/shop"},
		request{host: "any.web.svc.cluster.local", path: "/"},
	)
}

func TestOwnNameIsStrongerThanAnOlderServiceOfTheNamespace(t *testing.T) {
	check(t, buildWith(t, nil,
		[]route.Conflict{{Service: key("web", "old"), Host: "shop.web", Path: "/", Owner: key("web", "shop"), Reason: route.Duplicate}},
		service("web/old", 1, hosts("shop.web")), service("web/shop", 2)),
		request{host: "shop.web", path: "/", want: "web/shop"})
}

func TestServiceMayBeNamedSvc(t *testing.T) {
	check(t, buildWith(t, nil, nil, service("svc/svc", 0)),
		request{host: "svc.svc", want: "svc/svc"},
		request{host: "svc.svc.svc.cluster.local", want: "svc/svc"})
}

func TestPinIsStrongerThanAge(t *testing.T) {
	pinned := func(name, host, owner string) route.Conflict {
		return route.Conflict{Service: key("a", name), Host: host, Owner: key(owner, ""), Reason: route.Pinned}
	}
	table := buildWith(t,
		map[string]string{"APP.test.": "b", "*.b.test": "b", "a.b.test": "a", "*.dev": "b", "*": "b", "free.test": "b"},
		[]route.Conflict{
			{Service: key("dev", "shop"), Host: "shop.dev", Owner: key("b", ""), Reason: route.Pinned},
			pinned("old", "app.test", "b"),
			pinned("old", "x.b.test", "b"),
			pinned("old", "*", "b"),
		},
		service("a/old", 1, hosts("app.test", "x.b.test", "a.b.test", "*.test"), scaling.Route{}),
		service("b/new", 2, paths("app.test", "/b"), hosts("*.b.test", "www.dev"), scaling.Route{}),
		service("dev/shop", 3))
	check(t, table,
		request{host: "app.test", path: "/b", want: "b/new"},
		request{host: "app.test", path: "/x", want: "b/new"}, // b's route without host, not a's wildcard
		request{host: "free.test", path: "/", want: "b/new"}, // likewise: pinned, though nobody names it
		request{host: "a.b.test", path: "/", want: "a/old"},
		request{host: "c.b.test", path: "/", want: "b/new"},
		request{host: "other.test", path: "/", want: "a/old"},
		request{host: "www.dev", path: "/", want: "b/new"},
		request{host: "shop.dev.svc", path: "/", want: "dev/shop"},
	)
}

func TestSameHostPathAndHeadersStayWithTheOlder(t *testing.T) {
	blue := []scaling.HeaderMatch{{Name: "x-a", Value: "1"}, {Name: "x-b"}}
	same := []scaling.HeaderMatch{{Name: "X-B"}, {Name: "X-A", Value: "1"}, {Name: "X-B"}}
	check(t, buildWith(t, nil,
		[]route.Conflict{
			{Service: key("web", "new"), Host: "*.app.test", Path: "/api", Owner: key("web", "old"), Reason: route.Duplicate},
			{Service: key("web", "new"), Host: "*", Path: "/", Owner: key("web", "old"), Reason: route.Duplicate},
		},
		service("web/old", 1, headers("*.app.test", "/api", blue...), scaling.Route{}),
		service("web/new", 2, headers("*.App.test", "/api/", same...), scaling.Route{Paths: []string{"/"}}, paths("*.app.test", "/api"))),
		request{host: "x.app.test", path: "/api", want: "web/new"},
		request{host: "x.app.test", path: "/", want: "web/old"},
	)
}

func TestServiceMayRepeatItself(t *testing.T) {
	check(t, buildWith(t, nil, nil, service("web/shop", 0, hosts("app.test", "APP.test"), hosts("app.test", "shop.web"))),
		request{host: "app.test", want: "web/shop"})
}

func TestWhatCanNeverMatchIsAConflict(t *testing.T) {
	var want []route.Conflict
	invalid := []string{"", ".", "*.", "a*.test", "*.*.test", "**", "app.test:http", ".app.test"}
	for _, host := range invalid {
		want = append(want, route.Conflict{Service: key("web", "shop"), Host: host, Reason: route.Invalid})
	}
	bad := []string{"", "api", "*", "/a/../b", "/a/%2e", "/a?b"}
	for _, path := range bad {
		want = append(want, route.Conflict{Service: key("web", "shop"), Host: "app.test", Path: path, Reason: route.Invalid})
	}
	pin := route.Conflict{Host: "a*b", Reason: route.Invalid}
	check(t, buildWith(t, map[string]string{"a*b": "web"}, append([]route.Conflict{pin}, want...),
		service("web/shop", 0, hosts(append(invalid, "ok.test")...), paths("app.test", append(bad, "/ok")...))),
		request{host: "ok.test", want: "web/shop"},
		request{host: "app.test", path: "/ok", want: "web/shop"},
		request{host: "app.test", path: "/"},
		request{host: "", path: "/"})
}

func TestConflictReadsAsASentence(t *testing.T) {
	for want, c := range map[string]route.Conflict{
		"host *.dev is pinned to namespace b":                {Host: "*.dev", Owner: key("b", ""), Reason: route.Pinned},
		"host x.web is reserved for namespace web":           {Host: "x.web", Owner: key("web", ""), Reason: route.Reserved},
		"host *.svc is reserved for the namespaces below it": {Host: "*.svc", Reason: route.Reserved},
		"host app.test belongs to a/old":                     {Host: "app.test", Owner: key("a", "old"), Reason: route.Claimed},
		"host app.test/api belongs to a/old":                 {Host: "app.test", Path: "/api", Owner: key("a", "old"), Reason: route.Duplicate},
		"host a*b can never match":                           {Host: "a*b", Reason: route.Invalid},
	} {
		if got := c.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
