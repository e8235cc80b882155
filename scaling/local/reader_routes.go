package local

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/dormouse-dev/dormouse/scaling"
)

// readRoute reads one route and claims what it describes.
func (s *serviceReader) readRoute(v value) {
	var route scaling.Route
	var hosts []value
	anyHost := true
	v.mapping(fields{
		"hosts": func(v value) {
			anyHost = !v.set() || v.isList() && len(v.node.Content) == 0
			v.list(func(v value) {
				if host, ok := readHost(v); ok {
					route.Hosts = append(route.Hosts, host)
					hosts = append(hosts, v)
				}
			})
		},
		"paths": func(v value) {
			v.list(func(v value) {
				if path, ok := readPath(v); ok {
					route.Paths = append(route.Paths, path)
				}
			})
		},
		"headers": func(v value) { v.list(func(v value) { readHeader(v, &route) }) },
	})
	s.Definition.Service.Routes = append(s.Definition.Service.Routes, route)
	if anyHost {
		s.claim(v, "", &route)
	}
	for i, host := range hosts {
		s.claim(host, route.Hosts[i], &route)
	}
}

// complete adds what follows from the service's name, which must be its own: its target, and the hosts that it always
// has. A service without routes has one more, which browsers and curl resolve to this machine (RFC 6761 section 6.3).
func (s *serviceReader) complete() {
	service := &s.Definition.Service
	key := service.Key
	service.Target = scaling.Target{Namespace: key.Namespace, Kind: "Process", Name: key.Name}
	if key.Name == "" {
		return // Somebody was told.
	}
	if other, taken := s.names[key.String()]; taken {
		s.name.fail("%s is the name of %s, too (line %d)", key.Name, strings.TrimSuffix(other.path, ".name"), other.line)
		return
	}
	s.names[key.String()] = s.name

	always := key.Name + "." + key.Namespace
	route := scaling.Route{Hosts: []string{always, always + ".svc", always + ".svc.cluster.local"}}
	if len(service.Routes) == 0 {
		route.Hosts = append(route.Hosts, key.Name+".localhost")
	}
	service.Routes = append(service.Routes, route)
	for _, host := range route.Hosts {
		s.claim(s.name, host, &route)
	}
}

// claim notes that a host, empty for every host, is the service's under a route's other conditions, unless it is already
// another's.
func (s *serviceReader) claim(v value, host string, route *scaling.Route) {
	var headers []string
	for _, header := range route.Headers {
		headers = append(headers, strings.ToLower(header.Name)+":"+header.Value)
	}
	slices.Sort(headers)
	advice := ""
	if v.path == s.name.path && strings.HasSuffix(host, ".localhost") {
		advice = "; a service has that host unless it is given routes"
	}
	paths := route.Paths
	if len(paths) == 0 {
		paths = []string{"/"}
	}
	for _, path := range paths {
		key := strings.Join(append([]string{host, path}, headers...), "\n")
		other, taken := s.claims[key]
		switch {
		case !taken:
			s.claims[key] = s.self
		case other.path != s.self.path && host == "":
			v.fail("%s (line %d) takes these requests to every host already", other.path, other.line)
		case other.path != s.self.path && len(route.Paths) > 0:
			v.fail("%s%s is a route of %s (line %d) already", host, path, other.path, other.line)
		case other.path != s.self.path:
			v.fail("%s is a host of %s (line %d) already%s", host, other.path, other.line, advice)
		}
	}
}

// readHost takes a name or a wildcard, in the form in which routes have it.
func readHost(v value) (host string, ok bool) {
	var written string
	if !v.text(&written) {
		return "", false
	}
	host = strings.TrimSuffix(strings.ToLower(written), ".")
	for label := range strings.SplitSeq(strings.TrimPrefix(host, "*."), ".") {
		switch {
		case strings.Contains(label, ":"):
			v.fail("%q is not a host; leave scheme and port out", written)
		case strings.Contains(label, "*"):
			v.fail("%q is not a host; a wildcard stands for all of the first labels, as in *.example.com", written)
		case len(label) > maxLabel || len(host) > 253 || !isLabel(strings.ReplaceAll(label, "_", "x")):
			v.fail("%q is not a host; use a name such as shop.example.com or *.example.com", written)
		default:
			continue
		}
		return "", false
	}
	return host, true
}

// readPath takes a prefix of paths. One with a dot segment would never match: such requests match no path.
func readPath(v value) (path string, ok bool) {
	if !v.text(&path) {
		return "", false
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		v.fail("%q is not a path; begin it with a slash", path)
		return "", false
	case strings.ContainsAny(path, "?#"):
		v.fail("%q has a query or a fragment; routes match paths alone", path)
		return "", false
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		v.fail("%q is not a path; write it as in a request, spaces as %%20", path)
		return "", false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			v.fail("%q has a dot segment; no such request is matched", path)
			return "", false
		}
	}
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		return trimmed, true
	}
	return "/", true
}

func readHeader(v value, route *scaling.Route) {
	var match scaling.HeaderMatch
	v.mapping(fields{
		"name": func(v value) {
			if v.text(&match.Name) && !httpguts.ValidHeaderFieldName(match.Name) {
				v.fail("%q cannot be the name of a header", match.Name)
			}
		},
		"value": func(v value) {
			v.words(&match.Value)
			if !httpguts.ValidHeaderFieldValue(match.Value) {
				v.fail("%q cannot be the value of a header", match.Value)
			}
		},
	})
	if match.Name == "" {
		v.missing("name", "it is the header to look at")
	}
	route.Headers = append(route.Headers, match)
}
