package route_test

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
)

const clusterDomain = "cluster.local"

// model is the table as one would say it aloud: every host with its owner, every route with its conditions, and all of
// them looked at for every request.
type model struct {
	owned  []ownedHost
	routes []modelRoute
}

type ownedHost struct {
	pattern   string // "*" any, "*.b" wildcard
	namespace string
	reserved  bool
}

type modelRoute struct {
	service, pattern, path string
	namespace              string
	headers                []scaling.HeaderMatch
	order                  int
}

func newModel(rules []route.Rule[string], claims map[string]string) (m *model, refused int) {
	m = new(model)
	for pattern, namespace := range claims {
		m.owned = append(m.owned, ownedHost{pattern, namespace, false})
	}
	tails := []string{"", ".svc", ".svc." + clusterDomain}
	for _, tail := range tails {
		for _, r := range rules {
			m.reserve("*."+r.Service.Key.Namespace+tail, r.Service.Key.Namespace)
		}
	}
	for _, tail := range tails[1:] {
		m.reserve("*"+tail, "")
	}

	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(a, b route.Rule[string]) int { return a.Service.Created.Compare(b.Service.Created) })
	for _, r := range rules {
		for _, tail := range tails {
			if m.add(r, r.Service.Key.Name+"."+r.Service.Key.Namespace+tail, "/", nil) > 0 {
				refused++
			}
		}
	}
	for _, r := range rules {
		for _, one := range r.Service.Routes {
			for _, host := range orElse(one.Hosts, "*") {
				for i, path := range orElse(one.Paths, "/") {
					if n := m.add(r, strings.ToLower(host), path, one.Headers); n == 2 && i > 0 {
						continue // a host that is refused is refused once
					} else if n > 0 {
						refused++
					}
				}
			}
		}
	}
	return m, refused
}

func (m *model) reserve(pattern, namespace string) {
	for _, o := range m.owned {
		if o.pattern == pattern {
			return
		}
	}
	m.owned = append(m.owned, ownedHost{pattern, namespace, true})
}

// add returns 0 for a route that is accepted or repeated, 1 for one that another service has, 2 for a host of others.
func (m *model) add(r route.Rule[string], pattern, path string, headers []scaling.HeaderMatch) int {
	namespace := r.Service.Key.Namespace
	if o := m.owner(pattern); o != nil && o.namespace != namespace {
		return 2
	}
	known := false
	for i, o := range m.owned {
		if o.pattern == pattern {
			m.owned[i].reserved, known = false, true
		}
	}
	if !known {
		m.owned = append(m.owned, ownedHost{pattern, namespace, false})
	}
	path = strings.TrimRight(path, "/")
	for _, other := range m.routes {
		if other.pattern == pattern && other.path == path && describe(other.headers) == describe(headers) {
			if other.service == r.Value {
				return 0
			}
			return 1
		}
	}
	m.routes = append(m.routes, modelRoute{r.Value, pattern, path, namespace, headers, len(m.routes)})
	return 0
}

// owner returns whose a host or pattern is, or nil.
func (m *model) owner(pattern string) (best *ownedHost) {
	for i, o := range m.owned {
		if o.pattern == "*" && pattern != "*" || !o.covers(pattern) {
			continue
		}
		if best == nil || specific(o.pattern) > specific(best.pattern) {
			best = &m.owned[i]
		}
	}
	return best
}

func (o ownedHost) covers(name string) bool {
	if !covers(o.pattern, name) {
		return false
	}
	bare := o.reserved && strings.Count(o.pattern, ".") == 1 && o.pattern != "*.svc"
	if o.reserved && o.pattern == "*.svc" && o.namespace != "" {
		bare = true // a namespace of that name
	}
	return !bare || strings.Count(name, ".") == 1
}

func covers(pattern, name string) bool {
	if pattern == "*" || pattern == name {
		return true
	}
	tail, wildcard := strings.CutPrefix(pattern, "*.")
	return wildcard && strings.HasSuffix(name, "."+tail) && len(name) > len(tail)+1
}

// specific ranks patterns that cover the same name.
func specific(pattern string) int {
	if strings.HasPrefix(pattern, "*") {
		return len(pattern)
	}
	return 1000
}

func (m *model) match(host, path string, header http.Header) (string, bool) {
	name, ok := hostName(host)
	if !ok {
		return "", false
	}
	owner := m.owner(name)
	var best *modelRoute
	for i, r := range m.routes {
		ours := owner == nil || owner.namespace == r.namespace
		if !ours || !covers(r.pattern, name) || !pathHas(path, r.path) || !headersMatch(r.headers, header) {
			continue
		}
		if best == nil || r.before(best) {
			best = &m.routes[i]
		}
	}
	if best == nil {
		return "", false
	}
	return best.service, true
}

func (r *modelRoute) before(o *modelRoute) bool {
	switch {
	case specific(r.pattern) != specific(o.pattern):
		return specific(r.pattern) > specific(o.pattern)
	case len(r.path) != len(o.path):
		return len(r.path) > len(o.path)
	case len(r.headers) != len(o.headers):
		return len(r.headers) > len(o.headers)
	}
	return r.order < o.order
}

// hostName is what remains of a Host field to be compared.
func hostName(host string) (string, bool) {
	name := host
	switch {
	case strings.HasPrefix(host, "["):
		inner, port, err := net.SplitHostPort(host)
		if err != nil {
			end := strings.Index(host, "]")
			if end != len(host)-1 {
				return "", false
			}
			inner = host[1:end]
		} else if !digits(port) {
			return "", false
		}
		name = inner
	case strings.Count(host, ":") == 1:
		var port string
		if name, port, _ = strings.Cut(host, ":"); !digits(port) {
			return "", false
		}
	}
	name = strings.TrimSuffix(name, ".")
	if len(name) > 255 || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "[]") {
		return "", false
	}
	ascii := func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	return strings.Map(ascii, name), true
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func pathHas(path, prefix string) bool {
	if prefix == "" {
		return true
	}
	decoded := strings.NewReplacer("%2e", ".", "%2f", "/", "%5c", `\`, "%3b", ";").Replace(strings.ToLower(path))
	for _, segment := range strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return false
		}
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func headersMatch(wanted []scaling.HeaderMatch, header http.Header) bool {
	for _, w := range wanted {
		values := header.Values(w.Name)
		if w.Value == "" && len(values) == 0 || w.Value != "" && !slices.Contains(values, w.Value) {
			return false
		}
	}
	return true
}

func describe(headers []scaling.HeaderMatch) string {
	var lines []string
	for _, h := range headers {
		lines = append(lines, http.CanonicalHeaderKey(h.Name)+": "+h.Value)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func orElse(list []string, none string) []string {
	if len(list) == 0 {
		return []string{none}
	}
	return list
}
