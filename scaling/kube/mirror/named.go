package mirror

import (
	"net/netip"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
)

// named knows which addresses EndpointSlices say are serving, of those slices that count: all of the activators' own
// namespace, and of others those that are controlled by the ElasticService by whose name they go. What else a tenant says
// of an address is nobody's concern. It is not safe for concurrent use.
type named struct {
	home   string // the activators' namespace, or ""
	slices map[types.NamespacedName]naming
	owners map[scaling.Key]types.UID
	times  map[netip.Addr]int // how many of the slices that count name an address
}

// naming is what a slice says.
type naming struct {
	addresses  []netip.Addr
	controller types.UID // or ""
}

func newNamed(home string) *named {
	return &named{
		home: home, slices: make(map[types.NamespacedName]naming), owners: make(map[scaling.Key]types.UID),
		times: make(map[netip.Addr]int),
	}
}

// set notes what a slice says now.
func (n *named) set(slice *discoveryv1.EndpointSlice, gone bool) {
	name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Name}
	n.count(name, -1)
	delete(n.slices, name)
	_, mirrors := mirrorOf(name)
	if gone || !mirrors && name.Namespace != n.home {
		return
	}
	var says naming
	if controller := metav1.GetControllerOf(slice); controller != nil {
		says.controller = controller.UID
	}
	for i := range slice.Endpoints {
		if !serving(&slice.Endpoints[i]) {
			continue
		}
		for _, text := range slice.Endpoints[i].Addresses {
			if address, err := netip.ParseAddr(text); err == nil {
				says.addresses = append(says.addresses, address.Unmap())
			}
		}
	}
	if len(says.addresses) > 0 {
		n.slices[name] = says
		n.count(name, 1)
	}
}

// own notes which resource has a name now; "": none.
func (n *named) own(key scaling.Key, uid types.UID) {
	if n.owners[key] == uid {
		return
	}
	for _, f := range families() {
		n.count(types.NamespacedName{Namespace: key.Namespace, Name: key.Name + suffix + f.suffix}, -1)
	}
	n.owners[key] = uid
	if uid == "" {
		delete(n.owners, key)
	}
	for _, f := range families() {
		n.count(types.NamespacedName{Namespace: key.Namespace, Name: key.Name + suffix + f.suffix}, 1)
	}
}

// count adds to times what a slice says, or takes it away, if it counts.
func (n *named) count(name types.NamespacedName, by int) {
	says := n.slices[name]
	if name.Namespace != n.home {
		key, ok := mirrorOf(name)
		if !ok || says.controller == "" || n.owners[key] != says.controller {
			return
		}
	}
	for _, address := range says.addresses {
		if n.times[address] += by; n.times[address] == 0 {
			delete(n.times, address)
		}
	}
}

// mirrorOf returns the resource whose mirror's slice has a name.
func mirrorOf(slice types.NamespacedName) (scaling.Key, bool) {
	for _, f := range families() {
		if name, ok := strings.CutSuffix(slice.Name, suffix+f.suffix); ok {
			return scaling.Key{Namespace: slice.Namespace, Name: name}, true
		}
	}
	return scaling.Key{}, false
}

// any tells whether one of the addresses is named.
func (n *named) any(addresses []netip.Addr) bool {
	for _, address := range addresses {
		if n.times[address.Unmap()] > 0 {
			return true
		}
	}
	return false
}

// serving tells whether new connections are sent to an endpoint. Conditions left out are read as the API says: ready, and
// not terminating. What publishNotReadyAddresses calls ready while it terminates does not count.
func serving(e *discoveryv1.Endpoint) bool {
	ready, terminating := e.Conditions.Ready, e.Conditions.Terminating
	return (ready == nil || *ready) && (terminating == nil || !*terminating)
}
