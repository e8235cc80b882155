package route

import (
	"cmp"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Rule is a service and what its routes lead to.
type Rule[T any] struct {
	Service *scaling.Service
	Value   T
}

// Options of a [Table]. The zero value has neither a cluster domain nor pins.
type Options struct {
	// ClusterDomain ends the longest form of a service's own names, such as "cluster.local". Empty: that form is unknown.
	ClusterDomain string
	// Claims pins hosts ("app.test", "*.app.test") to namespaces. A pin is stronger than any resource's age, and than the
	// names reserved for namespaces where it is as specific. "*" pins the routes without hosts, and nothing else.
	Claims map[string]string
}

// Build makes the table for these services, and tells which of their hosts and paths it does not accept. Besides its
// routes a service has its own names, <name>.<namespace>[.svc[.<cluster domain>]], for all paths, and nobody can take
// them but by a pin. Keys are unique among the services, and no namespace is empty. A host or path in which a mistake is
// plain is a [Conflict] too; the rest of its service's routes stay.
func Build[T any](rules []Rule[T], options Options) (*Table[T], []Conflict) {
	b := builder[T]{
		table: &Table[T]{
			hosts:  make(map[string]*host, 3*len(rules)),
			routes: make(map[place][]route[T], 3*len(rules)),
		},
		taken:    make(map[condition]*scaling.Service, 3*len(rules)),
		suffixes: []string{"", ".svc"},
	}
	if domain := strings.Trim(options.ClusterDomain, "."); domain != "" {
		b.suffixes = append(b.suffixes, ".svc."+strings.ToLower(domain))
	}
	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(x, y Rule[T]) int { return x.Service.Created.Compare(y.Service.Created) })

	b.pin(options.Claims)
	b.reserve(rules)
	for _, rule := range rules {
		b.addOwnNames(rule)
	}
	for _, rule := range rules {
		for _, r := range rule.Service.Routes {
			b.add(rule, r)
		}
	}
	b.finish()
	return b.table, b.conflicts
}

// owner tells whose a host is.
type owner struct {
	namespace string           // empty: nobody's
	service   *scaling.Service // the first that named the host, or nil: pinned or reserved
	pinned    bool
	shallow   bool // covers names one label longer, no more
}

// condition is all that a request must have to take a route.
type condition struct {
	place
	headers string
}

type builder[T any] struct {
	table     *Table[T]
	taken     map[condition]*scaling.Service
	suffixes  []string // what may follow <name>.<namespace>
	conflicts []Conflict
}

// pin goes by the hosts' order, so that two spellings of one host always end the same way.
func (b *builder[T]) pin(claims map[string]string) {
	for _, pattern := range slices.Sorted(maps.Keys(claims)) {
		key, ok := parseHost(pattern)
		if !ok {
			b.refuse(Conflict{Host: pattern, Reason: Invalid})
			continue
		}
		b.own(key, owner{namespace: claims[pattern], pinned: true})
	}
}

// reserve sets the namespaces' own names apart, and for nobody those of namespaces that we do not know. The namespaces come
// first: one may be called "svc".
func (b *builder[T]) reserve(rules []Rule[T]) {
	for _, rule := range rules {
		namespace := rule.Service.Key.Namespace
		for _, suffix := range b.suffixes {
			b.own("."+strings.ToLower(namespace)+suffix, owner{namespace: namespace, shallow: suffix == ""})
		}
	}
	for _, suffix := range b.suffixes[1:] {
		b.own(suffix, owner{})
	}
}

// own gives a host to its owner unless it has one.
func (b *builder[T]) own(key string, o owner) *host {
	h := b.table.hosts[key]
	if h == nil {
		h = &host{owner: o}
		b.table.hosts[key] = h
	}
	return h
}

// addOwnNames comes before any routes: not even an older service of the same namespace has a service's own names.
func (b *builder[T]) addOwnNames(rule Rule[T]) {
	key := rule.Service.Key
	name := strings.ToLower(key.Name + "." + key.Namespace)
	longest := name + b.suffixes[len(b.suffixes)-1] // all share its memory
	for _, suffix := range b.suffixes {
		host := longest[:len(name)+len(suffix)]
		if h := b.claim(rule.Service, host); h != nil {
			b.put(rule, host, condition{place: place{host: h}}, nil)
		}
	}
}

func (b *builder[T]) add(rule Rule[T], r scaling.Route) {
	headers := parseHeaders(r.Headers)
	description := ""
	if len(headers) > 0 {
		description = fmt.Sprintf("%q", headers)
	}
	for _, pattern := range orElse(r.Hosts, "*") {
		key, ok := parseHost(pattern)
		if !ok {
			b.refuse(Conflict{Service: rule.Service.Key, Host: pattern, Reason: Invalid})
			continue
		}
		h := b.claim(rule.Service, key)
		if h == nil {
			continue
		}
		for _, path := range orElse(r.Paths, "/") {
			prefix, ok := parsePath(path)
			if !ok {
				b.refuse(Conflict{Service: rule.Service.Key, Host: display(key), Path: path, Reason: Invalid})
				continue
			}
			b.put(rule, key, condition{place{h, prefix}, description}, headers)
		}
	}
}

// claim returns a host for the service's routes, or nil where it belongs to another namespace.
func (b *builder[T]) claim(service *scaling.Service, key string) *host {
	h := b.table.hosts[key]
	decisive := h
	if h == nil {
		decisive, _ = b.table.above([]byte(key), 0)
	}
	if decisive != nil && decisive.namespace != service.Key.Namespace {
		b.refuse(Conflict{Service: service.Key, Host: display(key), Owner: decisive.key(), Reason: decisive.reason()})
		return nil
	}
	o := owner{namespace: service.Key.Namespace, service: service}
	if h == nil {
		return b.own(key, o)
	}
	if h.reason() == Reserved {
		h.owner = o
	}
	return h
}

// put adds a route, unless another service has one of the same condition.
func (b *builder[T]) put(rule Rule[T], key string, c condition, headers []scaling.HeaderMatch) {
	if other := b.taken[c]; other == nil {
		b.taken[c] = rule.Service
		b.table.routes[c.place] = append(b.table.routes[c.place], route[T]{headers, rule.Value})
		c.host.longest = max(c.host.longest, len(c.prefix))
	} else if other != rule.Service {
		b.refuse(Conflict{
			Service: rule.Service.Key, Host: display(key), Path: cmp.Or(c.prefix, "/"), Owner: other.Key, Reason: Duplicate,
		})
	}
}

func (b *builder[T]) refuse(c Conflict) { b.conflicts = append(b.conflicts, c) }

// finish puts the routes of each place in order, and links each host to the next wider one of its owner.
func (b *builder[T]) finish() {
	for _, routes := range b.table.routes {
		slices.SortStableFunc(routes, func(x, y route[T]) int { return len(y.headers) - len(x.headers) })
	}
	for key, h := range b.table.hosts {
		if key == "" {
			continue
		}
		wider, i := b.table.above([]byte(key), 0)
		for wider != nil && wider.namespace != h.namespace {
			wider, i = b.table.above([]byte(key), i)
		}
		if wider == nil {
			wider = b.table.hosts[""]
		}
		if wider != nil && wider.namespace == h.namespace {
			h.next = wider
		}
	}
}

// parseHeaders returns them canonical: names as [Header] gets them, in order, none twice.
func parseHeaders(headers []scaling.HeaderMatch) []scaling.HeaderMatch {
	headers = slices.Clone(headers)
	for i := range headers {
		headers[i].Name = textproto.CanonicalMIMEHeaderKey(headers[i].Name)
	}
	slices.SortFunc(headers, func(x, y scaling.HeaderMatch) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Value, y.Value))
	})
	return slices.Compact(headers)
}

func orElse(list []string, none string) []string {
	if len(list) == 0 {
		return []string{none}
	}
	return list
}
