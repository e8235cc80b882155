package mirror

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// sight is what was seen of the activators' listening for one resource.
type sight struct {
	asked  int   // addresses of activators that serve, and of a family that is wanted
	listen int   // of these
	closed error // why others do not
}

// state says whether activators can be reached; the zero value: that will be known in a moment.
func (s *sight) state(port int32) state {
	switch {
	case s.listen > 0:
		return state{metav1.ConditionTrue, "Listening", fmt.Sprintf("it leads to port %d of the activators", port)}
	case s.closed != nil:
		return state{metav1.ConditionFalse, "NotBound", fmt.Sprintf("no activator listens at port %d: %v", port, s.closed)}
	case s.asked > 0:
		return state{}
	}
	return state{metav1.ConditionFalse, "NoActivator", "no activator is ready that has an address of the Service's IP families"}
}

// endpoints are the activators that serve, by their addresses of one family, and that listen at the port. One that the
// slice has with that port already is not asked again: whoever wrote it has, and an activator that has only just started
// must not take away what it has not asked yet.
func (m *Mirror) endpoints(s *sight, key scaling.Key, f family, old *discoveryv1.EndpointSlice, port int32) (endpoints []discoveryv1.Endpoint) {
	for _, member := range m.options.Members.All() {
		if !serves(member) {
			continue
		}
		for _, address := range member.Addresses {
			if !f.has(address) {
				continue
			}
			s.asked++
			at := place{member.UID, address}
			if lists(old, at, port) || m.peers.listens(at, key, port) {
				endpoints = append(endpoints, m.endpoint(member, address))
			} else {
				s.closed = errors.Join(s.closed, m.peers.failure(at, key))
			}
			break
		}
	}
	s.listen += len(endpoints)
	return endpoints
}

// stays returns what a slice leads to that has the port that its resource had before, while nobody listens at the new one:
// the activators of it that serve still. That ends before the port may be another's.
func (m *Mirror) stays(es *v1alpha1.ElasticService, f family, old *discoveryv1.EndpointSlice, port int32) (at int32, endpoints []discoveryv1.Endpoint) {
	if old == nil || len(old.Ports) != 1 || old.Ports[0].Port == nil || *old.Ports[0].Port == port {
		return 0, nil
	}
	at = *old.Ports[0].Port
	m.mu.Lock()
	left := m.ledger.leftFor(time.Now(), at)
	m.mu.Unlock()
	if left == 0 {
		return 0, nil
	}
	m.queue.AddAfter(keyOf(es), left)
	for _, member := range m.options.Members.All() {
		for _, address := range member.Addresses {
			if serves(member) && f.has(address) && lists(old, place{member.UID, address}, at) {
				endpoints = append(endpoints, m.endpoint(member, address))
			}
		}
	}
	return at, endpoints
}

// endpoint is an activator in a slice.
func (m *Mirror) endpoint(member members.Member, address netip.Addr) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		TargetRef: &corev1.ObjectReference{
			Kind: "Pod", Namespace: m.options.Members.Namespace(), Name: member.Name, UID: member.UID,
		},
	}
}
