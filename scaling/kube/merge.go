package kube

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
)

// sliceKeeper is how the EndpointSlice controller labels its slices.
const sliceKeeper = "endpointslice-controller.k8s.io"

// source is all that the endpoints of one service are found from.
type source struct {
	namespace string
	port      *corev1.ServicePort
	families  []corev1.IPFamily // of the Service, the preferred one first
	selects   bool              // the Service selects pods
	protocol  scaling.Protocol  // that the service sets, or ProtocolAuto
	slices    []*discoveryv1.EndpointSlice
	pods      map[types.UID]*corev1.Pod // the Service's pods, where they are watched
	// podIPs returns the addresses of a pod that is not among pods, as far as it was read.
	podIPs func(types.UID) (addresses []netip.Addr, known bool)
	own    func(netip.Addr) bool
}

// candidate is a pod that may answer for a service: now, or once it has come up. Those that end, that have ended or
// that are none of the namespace's pods are no candidates.
type candidate struct {
	uid      types.UID
	name     string
	address  netip.AddrPort // the zero one: it has none yet
	protocol scaling.Protocol
	listed   bool        // a slice has it at this address
	ready    bool        // and calls it ready
	verified bool        // the address is one of its pod's own
	refused  bool        // no slice has it at an address of its pod's own, and the pod's are known
	pod      *corev1.Pod // where pods are watched, or nil
	listings []listing   // all that slices say of it
}

// listing is what one slice says of one address of a pod.
type listing struct {
	slice       string // its name
	pod         string // the name that it gives the pod
	kept        bool   // Kubernetes takes out of it whatever does not belong there
	address     netip.AddrPort
	protocol    scaling.Protocol
	ready       bool
	terminating bool
}

// merge returns the candidates in the order of their UIDs, one for each pod, whatever slices it is in. It is pure.
func (in *source) merge() []candidate {
	names, listings := in.list()
	for uid, p := range in.pods {
		names[uid] = p.Name
	}
	var all []candidate
	for _, uid := range slices.Sorted(maps.Keys(names)) {
		if c, ok := in.candidate(uid, names[uid], listings[uid]); ok {
			all = append(all, c)
		}
	}
	return all
}

// list reads the slices.
func (in *source) list() (names map[types.UID]string, listings map[types.UID][]listing) {
	names, listings = make(map[types.UID]string), make(map[types.UID][]listing)
	for _, slice := range in.slices {
		port := slicePort(slice, in.port)
		if port == nil || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		protocol, kept := in.protocolOf(port), in.keeps(slice)
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			// Whoever may write slices could name anything: a pod of another namespace, or just an address.
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.TargetRef.UID == "" || len(e.Addresses) == 0 ||
				e.TargetRef.Namespace != "" && e.TargetRef.Namespace != in.namespace {
				continue
			}
			address, err := netip.ParseAddr(e.Addresses[0]) // consumers are to ignore the others
			if err != nil || in.forbidden(address.Unmap()) {
				continue
			}
			uid := e.TargetRef.UID
			names[uid] = e.TargetRef.Name
			listings[uid] = append(listings[uid], listing{
				slice: slice.Name, pod: e.TargetRef.Name, kept: kept,
				address:     netip.AddrPortFrom(address.Unmap(), uint16(*port.Port)), //nolint:gosec // the API allows 1 to 65535
				protocol:    protocol,
				ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
				terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
			})
		}
	}
	return names, listings
}

func (in *source) candidate(uid types.UID, name string, listings []listing) (candidate, bool) {
	c := candidate{uid: uid, name: name, pod: in.pods[uid], listings: listings}
	if c.pod != nil && pod.Terminating(c.pod) || slices.ContainsFunc(listings, func(l listing) bool { return l.terminating }) {
		return c, false
	}
	var addresses []netip.Addr
	known := c.pod != nil && len(c.pod.Status.PodIPs) > 0
	if known {
		addresses = podIPs(c.pod)
	} else {
		addresses, known = in.podIPs(uid)
	}

	best := -1
	for _, l := range listings {
		if known && !slices.Contains(addresses, l.address.Addr()) {
			continue
		}
		rank := in.rank(l.address.Addr())
		switch {
		case best < 0 || rank < best:
			best = rank
			c.address, c.protocol, c.ready, c.listed, c.verified = l.address, l.protocol, l.ready, true, known
		case l.address == c.address:
			// The same endpoint in a second slice: one of them is about to go.
			c.ready = c.ready || l.ready
		}
	}
	if !c.listed && c.pod != nil {
		in.locate(&c, addresses)
	}
	c.refused = known && !c.listed && len(listings) > 0 && !c.address.IsValid()
	return c, c.listed || c.pod != nil || len(listings) > 0
}

// keeps reports that a slice is one that the EndpointSlice controller keeps. Anybody may label a slice so, but then the
// controller makes it say what the Service selects, and takes out what has ended.
func (in *source) keeps(slice *discoveryv1.EndpointSlice) bool {
	return in.selects && slice.Labels[discoveryv1.LabelManagedBy] == sliceKeeper
}

// locate finds the address of a pod that no slice has yet.
func (in *source) locate(c *candidate, addresses []netip.Addr) {
	number, ok := pod.TargetPort(in.port, c.pod)
	if !ok {
		return
	}
	best := -1
	for _, address := range addresses {
		if rank := in.rank(address); (best < 0 || rank < best) && !in.forbidden(address) {
			best = rank
			c.address, c.verified = netip.AddrPortFrom(address, uint16(number)), true //nolint:gosec // the API allows 1 to 65535
			c.protocol = in.protocolOf(&discoveryv1.EndpointPort{AppProtocol: in.port.AppProtocol})
		}
	}
}

// forbidden reports that no request may go to an address, whoever says that it is a pod's: an activator's own, and those that
// mean something else on each machine, such as the loopback that our control port is on, and 169.254.169.254, where clouds
// tell a machine's secrets. The API server lets them into no EndpointSlice; the proxy does not rely on that.
func (in *source) forbidden(address netip.Addr) bool {
	return !address.IsGlobalUnicast() || address.Zone() != "" || in.own(address)
}

// rank is the place of an address's family among those of the Service.
func (in *source) rank(address netip.Addr) int {
	family := corev1.IPv4Protocol
	if address.Is6() {
		family = corev1.IPv6Protocol
	}
	if i := slices.Index(in.families, family); i >= 0 {
		return i
	}
	return len(in.families) + 1
}

// protocolOf resolves what a slice's port says, see
// https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol.
func (in *source) protocolOf(port *discoveryv1.EndpointPort) scaling.Protocol {
	if in.protocol != scaling.ProtocolAuto {
		return in.protocol
	}
	application := port.AppProtocol
	if application == nil {
		application = in.port.AppProtocol
	}
	if application != nil {
		switch *application {
		case "kubernetes.io/h2c":
			return scaling.ProtocolH2C
		case "https", "kubernetes.io/wss":
			return scaling.ProtocolHTTPS
		}
	}
	return scaling.ProtocolHTTP1
}

// slicePort returns the port of a slice that a Service's port leads to: the one of the same name. Its number may differ
// from slice to slice, as it does where the Service names a port of its pods.
func slicePort(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) *discoveryv1.EndpointPort {
	for i := range slice.Ports {
		p := &slice.Ports[i]
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name == port.Name && p.Port != nil {
			return p
		}
	}
	return nil
}

// podIPs returns the addresses of a pod, by its own word.
func podIPs(p *corev1.Pod) []netip.Addr {
	addresses := make([]netip.Addr, 0, len(p.Status.PodIPs))
	for _, ip := range p.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			addresses = append(addresses, address.Unmap())
		}
	}
	return addresses
}
