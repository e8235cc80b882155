package mirror

import "github.com/dormouse-dev/dormouse/scaling"

// backends knows which resources name which Service as their backend. It is not safe for concurrent use.
type backends struct {
	services  map[scaling.Key]string                   // of each resource
	resources map[scaling.Key]map[scaling.Key]struct{} // of each Service
}

func newBackends() *backends {
	return &backends{services: make(map[scaling.Key]string), resources: make(map[scaling.Key]map[scaling.Key]struct{})}
}

// set notes that a resource names a Service of its namespace; "": it is gone.
func (b *backends) set(key scaling.Key, service string) {
	before, known := b.services[key]
	if known && before == service {
		return
	}
	if known {
		at := scaling.Key{Namespace: key.Namespace, Name: before}
		if delete(b.resources[at], key); len(b.resources[at]) == 0 {
			delete(b.resources, at)
		}
		delete(b.services, key)
	}
	if service == "" {
		return
	}
	at := scaling.Key{Namespace: key.Namespace, Name: service}
	if b.resources[at] == nil {
		b.resources[at] = make(map[scaling.Key]struct{}, 1)
	}
	b.resources[at][key] = struct{}{}
	b.services[key] = service
}

// of returns the resources that name a Service.
func (b *backends) of(namespace, service string) []scaling.Key {
	var keys []scaling.Key
	for key := range b.resources[scaling.Key{Namespace: namespace, Name: service}] {
		keys = append(keys, key)
	}
	return keys
}
