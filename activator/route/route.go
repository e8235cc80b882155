// Package route finds the service that a request is for.
//
// A [Table] is built once from all services and never changes; a changed configuration makes a new one. Finding a route
// allocates nothing and takes as long among ten thousand services as it does with one; only routes that differ in nothing
// but their headers are tried one by one.
//
// # Which route is taken
//
// The host decides first: an exact name before a wildcard, a longer wildcard before a shorter one, and last the routes
// without a host, which match any. Then the longest path, then more headers, then the older service (by Created, then by
// the order given). Where a route's path or headers do not match, the next best is tried, on shorter paths and on wider
// hosts as well.
//
// Names are compared without regard to ASCII case, port and one trailing dot, so APP.test, app.test. and app.test:8080
// are one host. "*.b.c" matches one label or more before ".b.c", as in the Gateway API: a.b.c and x.a.b.c, not b.c. A name
// of more than 255 bytes, one that begins with a dot and one with a malformed port match nothing at all.
//
// A path is a prefix that ends on a segment boundary and is compared byte for byte with what the client sent; nothing is
// decoded, so /%61pi is not /api, and the %2F of /api%2Fx is no boundary. A trailing slash means nothing, and "/" puts no
// condition. A path with a dot segment could lead the application to another place than the one its first bytes name, so
// that only routes without a condition on the path match it; "%2e" counts as a dot, a backslash and the escapes of both
// slashes as boundaries, and a segment ends at ";" (what applications make of "..;/" is well known).
//
// # Whose a host is
//
// A host belongs to one namespace, and so does all that a wildcard covers: routes of other namespaces are not accepted,
// and no request for the host falls back to a wildcard, or to a route without hosts, of another namespace. The most
// specific of these decides:
//
//   - a pin of [Options];
//   - a namespace's own names: <name>.<namespace>, *.<namespace>, and all that ends in .<namespace>.svc or
//     .<namespace>.svc.<cluster domain>. Namespaces are those of the services given. What is two labels and more below the
//     bare name is not reserved: a namespace that happens to be called "dev" does not take www.example.dev;
//   - the oldest service that names the host, or names a wildcard that covers it.
//
// "No host" belongs to a namespace like any host, but nothing lies below it.
package route

import (
	"bytes"
	"slices"
	"strings"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Header gives a request's header fields. An http.Header is one. Values gets names in the canonical form of MIME
// headers (X-Tenant) and returns every value of that field, or none; its result is not kept.
type Header interface {
	Values(name string) []string
}

// Table finds values by host, path and headers. It is immutable. The zero value matches nothing.
type Table[T any] struct {
	hosts  map[string]*host // "" is any host, ".b.c" is *.b.c
	routes map[place][]route[T]
}

// place is where a request can arrive: a host and a prefix of its paths, "" or without trailing slash.
type place struct {
	host   *host
	prefix string
}

// route is one of those that share a place, more headers first, then older.
type route[T any] struct {
	headers []scaling.HeaderMatch
	value   T
}

// host is a name or wildcard that is owned, not necessarily one that has routes.
type host struct {
	longest int   // length of its routes' longest path
	next    *host // the next wider one of the same owner, or nil
	owner
}

// Match returns the value of the best route. The path is the one in the request as the client sent it, still escaped,
// without query. The header is not nil.
func (t *Table[T]) Match(host, path string, header Header) (value T, ok bool) {
	var buffer [maxHost]byte
	name, ok := fold(buffer[:0], host)
	if !ok {
		return value, false
	}
	for h := t.find(name); h != nil; h = h.next {
		n := min(len(path), h.longest)
		if n > 0 && dotted(path) {
			n = 0
		}
		for ; n > 0; n = strings.LastIndexByte(path[:n], '/') {
			if n < len(path) && path[n] != '/' {
				continue
			}
			if value, ok = t.choose(place{h, path[:n]}, header); ok {
				return value, true
			}
		}
		if value, ok = t.choose(place{h, ""}, header); ok {
			return value, true
		}
	}
	return value, false
}

// find returns the most specific host for a name, or nil.
func (t *Table[T]) find(name []byte) *host {
	if h := t.hosts[string(name)]; h != nil {
		return h
	}
	if h, _ := t.above(name, 0); h != nil {
		return h
	}
	return t.hosts[""]
}

// above returns the nearest wildcard that covers a name, or wildcard, and its position there; or nil. Only those that
// begin after position i are considered.
func (t *Table[T]) above(name []byte, i int) (*host, int) {
	for i++; i < len(name); i++ {
		if name[i] != '.' {
			continue
		}
		h := t.hosts[string(name[i:])]
		if h != nil && !(h.shallow && bytes.IndexByte(name, '.') < i) {
			return h, i
		}
	}
	return nil, i
}

func (t *Table[T]) choose(at place, header Header) (value T, ok bool) {
	for _, r := range t.routes[at] {
		if satisfied(r.headers, header) {
			return r.value, true
		}
	}
	return value, false
}

func satisfied(wanted []scaling.HeaderMatch, header Header) bool {
	for _, w := range wanted {
		values := header.Values(w.Name)
		if len(values) == 0 || w.Value != "" && !slices.Contains(values, w.Value) {
			return false
		}
	}
	return true
}
