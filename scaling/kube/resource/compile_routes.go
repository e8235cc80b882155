package resource

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// The longest names: a resource's leaves room for what is added to it in a DNS label.
const (
	maxLabel = 63
	maxName  = 53
	maxHost  = 253
)

func (c *compiler) routes(routes []v1alpha1.Route, at *field.Path) []scaling.Route {
	compiled := make([]scaling.Route, 0, len(routes))
	for i := range routes {
		r, at := &routes[i], at.Index(i)
		route := scaling.Route{}
		for j, host := range r.Hosts {
			if host, ok := c.host(host, at.Child("hosts").Index(j)); ok {
				route.Hosts = append(route.Hosts, host)
			}
		}
		for j, path := range r.Paths {
			if path, ok := c.path(path, at.Child("paths").Index(j)); ok {
				route.Paths = append(route.Paths, path)
			}
		}
		for j, header := range r.Headers {
			at := at.Child("headers").Index(j)
			if !httpguts.ValidHeaderFieldName(header.Name) {
				c.invalid(at.Child("name"), header.Name, "cannot be the name of a header")
			}
			if !httpguts.ValidHeaderFieldValue(header.Value) {
				c.invalid(at.Child("value"), header.Value, "cannot be the value of a header")
			}
			route.Headers = append(route.Headers, scaling.HeaderMatch{Name: header.Name, Value: header.Value})
		}
		if len(r.Hosts)+len(r.Paths)+len(r.Headers) == 0 {
			c.invalid(at, "", "has neither hosts nor paths nor headers; a route for all requests has the path /")
		}
		compiled = append(compiled, route)
	}
	return compiled
}

func (c *compiler) host(written string, at *field.Path) (host string, ok bool) {
	host = strings.TrimSuffix(strings.ToLower(written), ".")
	for label := range strings.SplitSeq(strings.TrimPrefix(host, "*."), ".") {
		switch {
		case strings.Contains(label, ":"):
			c.invalid(at, written, "must be a name; leave scheme and port out")
		case strings.Contains(label, "*"):
			c.invalid(at, written, "must have its wildcard as the first label, as in *.example.com")
		case len(host) > maxHost || !isLabel(strings.ReplaceAll(label, "_", "x"), maxLabel):
			c.invalid(at, written, "must be a name such as shop.example.com or *.example.com, its labels of at most %d characters", maxLabel)
		default:
			continue
		}
		return "", false
	}
	return host, true
}

// path takes a prefix of paths. One with a dot segment would never match: such requests match no path.
func (c *compiler) path(path string, at *field.Path) (clean string, ok bool) {
	segments := strings.Split(path, "/")
	switch {
	case !strings.HasPrefix(path, "/"):
		c.invalid(at, path, "must begin with a slash")
	case strings.ContainsAny(path, "?#"):
		c.invalid(at, path, "must be a path, without query and fragment")
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		c.invalid(at, path, "must be written as in a request, spaces as %%20")
	case slices.Contains(segments, "."), slices.Contains(segments, ".."):
		c.invalid(at, path, "has a dot segment; no such request is matched")
	default:
		if clean = strings.TrimRight(path, "/"); clean == "" {
			clean = "/"
		}
		return clean, true
	}
	return "", false
}

// mustBeName is said of what is not isName.
const mustBeName = "must be the name of an object: labels of small letters, digits and dashes with dots between them"

// isName reports whether s is a DNS subdomain (RFC 1123), as the names of objects and groups are.
func isName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label, maxHost) {
			return false
		}
	}
	return len(s) <= maxHost
}

// isVersion reports whether s is a DNS label that begins with a letter (RFC 1035), as versions are, and kinds in small
// letters.
func isVersion(s string) bool { return isLabel(s, maxLabel) && s[0] >= 'a' }

// isLabel reports whether s is a DNS label (RFC 1123), or the name of a Service's port.
func isLabel(s string, longest int) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != "" && len(s) <= longest
}
