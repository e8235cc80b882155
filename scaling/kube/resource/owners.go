package resource

import (
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// owners tells whose each port is: where two resources have the same, the older one's. objects are in the order of age.
func owners(objects []*v1alpha1.ElasticService) map[int32]scaling.Key {
	ports := make(map[int32]scaling.Key, len(objects))
	for _, es := range objects {
		port := es.Status.ActivatorPort
		if _, taken := ports[port]; port > 0 && port <= 65535 && !taken {
			ports[port] = scaling.Key{Namespace: es.Namespace, Name: es.Name}
		}
	}
	return ports
}
