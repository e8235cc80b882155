package mirror

import (
	"net/netip"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// named knows which addresses EndpointSlices say are serving. It is not safe for concurrent use.
type named struct {
	slices map[types.NamespacedName][]netip.Addr
	times  map[netip.Addr]int // how many of the slices name an address
}

func newNamed() *named {
	return &named{slices: make(map[types.NamespacedName][]netip.Addr), times: make(map[netip.Addr]int)}
}

// set notes what a slice says now. One that does not count says nothing.
func (n *named) set(slice *discoveryv1.EndpointSlice, counts bool) {
	name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Name}
	for _, address := range n.slices[name] {
		if n.times[address]--; n.times[address] == 0 {
			delete(n.times, address)
		}
	}
	delete(n.slices, name)
	if !counts {
		return
	}
	var addresses []netip.Addr
	for i := range slice.Endpoints {
		if !serving(&slice.Endpoints[i]) {
			continue
		}
		for _, text := range slice.Endpoints[i].Addresses {
			if address, err := netip.ParseAddr(text); err == nil {
				addresses = append(addresses, address.Unmap())
			}
		}
	}
	if len(addresses) == 0 {
		return
	}
	n.slices[name] = addresses
	for _, address := range addresses {
		n.times[address]++
	}
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
