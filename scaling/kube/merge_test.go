package kube

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
)

// say is one endpoint of a slice: "uid address", and then any of notready, nil, serving, terminating, ns=…, kind=…, nouid.
func say(words string) discoveryv1.Endpoint {
	yes, no := true, false
	fields := strings.Fields(words)
	e := discoveryv1.Endpoint{
		Addresses:  []string{fields[1]},
		Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "web", Name: "pod-" + fields[0], UID: types.UID(fields[0])},
	}
	for _, word := range fields[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "notready":
			e.Conditions.Ready, e.Conditions.Serving = &no, &no
		case "nil":
			e.Conditions = discoveryv1.EndpointConditions{}
		case "terminating":
			e.Conditions.Ready, e.Conditions.Terminating = &no, &yes
		case "published": // by publishNotReadyAddresses, however it ends
			e.Conditions.Terminating = &yes
		case "ns":
			e.TargetRef.Namespace = value
		case "kind":
			e.TargetRef.Kind = value
		case "nouid":
			e.TargetRef.UID = ""
		case "noref":
			e.TargetRef = nil
		default:
			panic(word)
		}
	}
	return e
}

// slice has ports "name:number" or "name:number:appProtocol", and endpoints as say has them.
func slice(ports string, endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	for port := range strings.FieldsSeq(ports) {
		parts := strings.SplitN(port, ":", 3)
		name, number := parts[0], intstr.Parse(parts[1]).IntVal
		p := discoveryv1.EndpointPort{Name: &name, Port: &number}
		if len(parts) > 2 {
			p.AppProtocol = &parts[2]
		}
		if name == "nil" {
			p.Name = nil
		}
		s.Ports = append(s.Ports, p)
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, say(e))
		if strings.Contains(strings.Fields(e)[1], ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
	}
	return s
}

func livePod(uid string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "pod-" + uid, UID: types.UID(uid)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

// sayCandidates is the other way round: "uid address protocol", and then listed, ready, verified, refused.
func sayCandidates(all []candidate) []string {
	var said []string
	for _, c := range all {
		address := "-"
		if c.address.IsValid() {
			address = fmt.Sprintf("%s %v", c.address, c.protocol)
		}
		words := []string{string(c.uid), address}
		for word, is := range map[string]bool{"1listed": c.listed, "2ready": c.ready, "3verified": c.verified, "4refused": c.refused} {
			if is {
				words = append(words, word)
			}
		}
		slices.Sort(words[2:])
		for i, word := range words[2:] {
			words[2+i] = word[1:]
		}
		said = append(said, strings.Join(words, " "))
	}
	return said
}

func TestSlicesAreMerged(t *testing.T) {
	h2c := "kubernetes.io/h2c"
	for _, c := range []struct {
		what     string
		port     corev1.ServicePort
		families []corev1.IPFamily
		protocol scaling.Protocol
		slices   []*discoveryv1.EndpointSlice
		pods     []*corev1.Pod
		known    map[string]string // addresses of pods that were read, separated by spaces
		want     []string
	}{
		{
			what:   "several slices",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "b 10.0.0.2"), slice("http:80", "a 10.0.0.1", "c 10.0.0.3 notready")},
			want:   []string{"a 10.0.0.1:80 HTTP1 listed ready", "b 10.0.0.2:80 HTTP1 listed ready", "c 10.0.0.3:80 HTTP1 listed"},
		},
		{
			what:   "an endpoint in two slices, on its way from one to the other",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1 notready"), slice("http:80", "a 10.0.0.1", "a 10.0.0.1")},
			want:   []string{"a 10.0.0.1:80 HTTP1 listed ready"},
		},
		{
			what:   "conditions that are not given mean ready",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1 nil")},
			want:   []string{"a 10.0.0.1:80 HTTP1 listed ready"},
		},
		{
			what:   "what ends is not there, whatever else is said of it",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1 terminating", "b 10.0.0.2 published", "c 10.0.0.3"), slice("http:80", "c 10.0.0.3 terminating")},
		},
		{
			what:   "the port's number differs from slice to slice, its name does not",
			slices: []*discoveryv1.EndpointSlice{slice("metrics:9 http:8080", "a 10.0.0.1"), slice("http:9090 metrics:9", "b 10.0.0.2")},
			want:   []string{"a 10.0.0.1:8080 HTTP1 listed ready", "b 10.0.0.2:9090 HTTP1 listed ready"},
		},
		{
			what:   "a slice without the port says nothing",
			slices: []*discoveryv1.EndpointSlice{slice("metrics:9", "a 10.0.0.1"), slice("", "b 10.0.0.2")},
		},
		{
			what:   "a Service's only port has no name, and neither have those of its slices",
			port:   corev1.ServicePort{Port: 80},
			slices: []*discoveryv1.EndpointSlice{slice("nil:80", "a 10.0.0.1"), slice(":81", "b 10.0.0.2")},
			want:   []string{"a 10.0.0.1:80 HTTP1 listed ready", "b 10.0.0.2:81 HTTP1 listed ready"},
		},
		{
			what:     "of two families the Service's first",
			families: []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol},
			slices:   []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1", "b 10.0.0.2"), slice("http:80", "a fd00::1")},
			want:     []string{"a [fd00::1]:80 HTTP1 listed ready", "b 10.0.0.2:80 HTTP1 listed ready"},
		},
		{
			what:     "of two families the Service's first, in another order",
			families: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			slices:   []*discoveryv1.EndpointSlice{slice("http:80", "a fd00::1"), slice("http:80", "a 10.0.0.1")},
			want:     []string{"a 10.0.0.1:80 HTTP1 listed ready"},
		},
		{
			what:   "application protocols",
			slices: []*discoveryv1.EndpointSlice{slice("http:80:kubernetes.io/h2c", "a 10.0.0.1"), slice("http:80:https", "b 10.0.0.2"), slice("http:80:kubernetes.io/wss", "c 10.0.0.3"), slice("http:80:kubernetes.io/ws", "d 10.0.0.4"), slice("http:80:example.com/own", "e 10.0.0.5")},
			want:   []string{"a 10.0.0.1:80 H2C listed ready", "b 10.0.0.2:80 HTTPS listed ready", "c 10.0.0.3:80 HTTPS listed ready", "d 10.0.0.4:80 HTTP1 listed ready", "e 10.0.0.5:80 HTTP1 listed ready"},
		},
		{
			what:   "the Service's application protocol where the slice has none",
			port:   corev1.ServicePort{Name: "http", Port: 80, AppProtocol: &h2c, TargetPort: intstr.FromString("web")},
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1")},
			pods:   []*corev1.Pod{livePod("b", "10.0.0.2")},
			want:   []string{"a 10.0.0.1:80 H2C listed ready", "b 10.0.0.2:8080 H2C verified"},
		},
		{
			what: "the service's own protocol before all", protocol: scaling.ProtocolHTTPS,
			slices: []*discoveryv1.EndpointSlice{slice("http:80:kubernetes.io/h2c", "a 10.0.0.1")},
			want:   []string{"a 10.0.0.1:80 HTTPS listed ready"},
		},
		{
			what:   "what is no pod of the namespace",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1 ns=other", "b 10.0.0.2 kind=Node", "c 10.0.0.3 nouid", "d 10.0.0.4 noref", "e 10.0.0.5 ns=")},
			want:   []string{"e 10.0.0.5:80 HTTP1 listed ready"},
		},
		{
			what:   "an activator's address",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.9.9.9", "a 10.0.0.1"), slice("http:80", "b ::ffff:10.9.9.9")},
			pods:   []*corev1.Pod{livePod("c", "10.9.9.9")},
			want:   []string{"a 10.0.0.1:80 HTTP1 listed ready", "c -"},
		},
		{
			what:   "an address that its pod does not have",
			slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1", "b 10.0.0.2", "c 10.0.0.3"), slice("http:80", "b 10.1.1.1", "d 10.0.0.4")},
			pods:   []*corev1.Pod{livePod("d", "10.0.0.5")},
			known:  map[string]string{"a": "10.0.0.9", "b": "fd00::2 10.1.1.1", "c": ""},
			want: []string{
				"a - refused", "b 10.1.1.1:80 HTTP1 listed ready verified", "c - refused", "d 10.0.0.5:8080 HTTP1 verified",
			},
		},
		{
			what: "pods that no slice has yet",
			pods: []*corev1.Pod{livePod("a", "10.0.0.1", "fd00::1"), livePod("b")},
			want: []string{"a 10.0.0.1:8080 HTTP1 verified", "b -"},
		},
		{
			what: "pods that no slice has yet, of a Service of two families", families: []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol},
			pods: []*corev1.Pod{livePod("a", "10.0.0.1", "fd00::1"), livePod("b", "10.0.0.2")},
			want: []string{"a [fd00::1]:8080 HTTP1 verified", "b 10.0.0.2:8080 HTTP1 verified"},
		},
	} {
		in := &source{
			namespace: "web", port: &corev1.ServicePort{Name: "http", Port: 80, TargetPort: intstr.FromString("web")},
			families: c.families, protocol: c.protocol, slices: c.slices, pods: make(map[types.UID]*corev1.Pod),
			own: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.9.9.9") },
			podIPs: func(uid types.UID) (addresses []netip.Addr, known bool) {
				said, known := c.known[string(uid)]
				for address := range strings.FieldsSeq(said) {
					addresses = append(addresses, netip.MustParseAddr(address))
				}
				return addresses, known
			},
		}
		if c.port.Port != 0 {
			in.port = &c.port
		}
		for _, p := range c.pods {
			in.pods[p.UID] = p
		}
		if got := sayCandidates(in.merge()); !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.what, got, c.want)
		}
	}
}

func TestAPodThatEndsIsNoCandidateWhateverSlicesSay(t *testing.T) {
	ending, over := livePod("a", "10.0.0.1"), livePod("b", "10.0.0.2")
	ending.DeletionTimestamp = &metav1.Time{}
	over.Status.Phase = corev1.PodFailed
	in := &source{
		namespace: "web", port: &corev1.ServicePort{Name: "http", Port: 80},
		slices: []*discoveryv1.EndpointSlice{slice("http:80", "a 10.0.0.1", "b 10.0.0.2")},
		pods:   map[types.UID]*corev1.Pod{"a": ending, "b": over},
		own:    func(netip.Addr) bool { return false },
		podIPs: func(types.UID) ([]netip.Addr, bool) { return nil, false },
	}
	if got := in.merge(); len(got) != 0 {
		t.Errorf("got %v, want none", sayCandidates(got))
	}
}

func TestAnAddressThatIsNoPodsIsNoEndpoint(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "169.254.0.1", "fe80::1", "::ffff:169.254.169.254",
		"224.0.0.1", "ff02::1", "255.255.255.255",
	} {
		for where, in := range map[string]*source{
			"a slice": {
				slices: []*discoveryv1.EndpointSlice{slice("http:80", "a "+address)},
				podIPs: func(types.UID) ([]netip.Addr, bool) { return nil, false },
			},
			"a slice and the pod": {
				slices: []*discoveryv1.EndpointSlice{slice("http:80", "a "+address)},
				podIPs: func(types.UID) ([]netip.Addr, bool) { return []netip.Addr{netip.MustParseAddr(address).Unmap()}, true },
			},
			"a pod that no slice has": {
				pods:   map[types.UID]*corev1.Pod{"a": livePod("a", address)},
				podIPs: func(types.UID) ([]netip.Addr, bool) { return nil, false },
			},
		} {
			in.namespace, in.port = "web", &corev1.ServicePort{Name: "http", Port: 80, TargetPort: intstr.FromInt32(80)}
			in.own = func(netip.Addr) bool { return false }
			for _, c := range in.merge() {
				if c.address.IsValid() {
					t.Errorf("%s at %s is a candidate: %q", where, address, sayCandidates([]candidate{c}))
				}
			}
		}
	}
}

// TestMergingFollowsAModel spreads the endpoints of pods over slices at random, and compares with what is so by
// construction.
func TestMergingFollowsAModel(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 4))
		in := &source{
			namespace: "web", port: &corev1.ServicePort{Name: "http", Port: 80},
			families: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			pods:     make(map[types.UID]*corev1.Pod),
			own:      func(netip.Addr) bool { return false },
		}
		slicesOf := []*discoveryv1.EndpointSlice{slice("http:80"), slice("http:81 other:80"), slice("other:80"), slice("http:80")}
		known := make(map[types.UID][]netip.Addr)
		var want []string
		for n := range random.IntN(6) {
			uid := fmt.Sprint(n)
			four, six := fmt.Sprintf("10.0.0.%d", n+1), fmt.Sprintf("fd00::%d", n+1)
			isKnown := random.IntN(2) == 0
			if isKnown {
				known[types.UID(uid)] = []netip.Addr{netip.MustParseAddr(four), netip.MustParseAddr(six)}
			}
			// What each slice that has the port says, in order; an address that no pod has, 10.9.9.9, counts until it is known.
			ready, listed, ends, named := false, "", false, false
			for i, s := range slicesOf {
				if random.IntN(3) > 0 {
					continue
				}
				address := []string{four, four, six}[random.IntN(3)]
				if isKnown && random.IntN(4) == 0 {
					address = "10.9.9.9"
				}
				word := []string{"", "nil", "notready", "terminating"}[random.IntN(4)]
				s.Endpoints = append(s.Endpoints, say(uid+" "+address+" "+word))
				if i == 2 {
					continue
				}
				named = true
				ends = ends || word == "terminating"
				if address == "10.9.9.9" {
					continue
				}
				isReady := word == "" || word == "nil"
				at := fmt.Sprintf("%s:%d", address, []int{80, 81, 0, 80}[i])
				if address == six {
					at = fmt.Sprintf("[%s]:%d", address, []int{80, 81, 0, 80}[i])
				}
				switch {
				case listed == "" || listed[0] == '[' && at[0] != '[':
					listed, ready = at, isReady
				case listed == at:
					ready = ready || isReady
				}
			}
			switch {
			case !named, ends:
			case listed == "":
				want = append(want, uid+" - refused")
			default:
				said := uid + " " + listed + " HTTP1 listed"
				if ready {
					said += " ready"
				}
				if isKnown {
					said += " verified"
				}
				want = append(want, said)
			}
		}
		in.slices = slicesOf
		in.podIPs = func(uid types.UID) ([]netip.Addr, bool) { a, ok := known[uid]; return a, ok }
		if got := sayCandidates(in.merge()); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d:\ngot  %q\nwant %q", seed, got, want)
		}
	}
}

func TestAPortIsFoundOrItsAbsenceExplained(t *testing.T) {
	number := intstr.FromInt32(443)
	quic := corev1.ServicePort{Name: "h3", Port: 443, Protocol: corev1.ProtocolUDP}
	service := func(change func(*corev1.ServiceSpec), ports ...corev1.ServicePort) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "shop"}, Spec: corev1.ServiceSpec{Ports: ports}}
		if change != nil {
			change(&s.Spec)
		}
		return s
	}
	for what, c := range map[string]struct {
		service *corev1.Service
		want    string // the port's name, or words of the failure
	}{
		"TCP's port of a number":      {service(nil, quic, corev1.ServicePort{Name: "https", Port: 443}), "https"},
		"a number that is UDP's only": {service(nil, quic), "NoService: port 443 of Service web/shop is for UDP"},
		"another number":              {service(nil, corev1.ServicePort{Name: "web", Port: 80}), "NoService: Service web/shop has no port 443; it has web 80"},
		"no Service":                  {nil, "NoService: there is no Service web/shop"},
		"an ExternalName": {
			service(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }, corev1.ServicePort{Name: "https", Port: 443}),
			"NoService: Service web/shop is of type ExternalName",
		},
	} {
		d := &Definition{Service: scaling.Service{Key: scaling.Key{Namespace: "web", Name: "any"}}, ServiceName: "shop", Port: &number}
		port, failure := d.port(c.service)
		var got string
		if failure != nil {
			got = failure.Error()
		} else {
			got = port.Name
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}
