package pod

import (
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// Plan is what proves that a pod can answer.
type Plan struct {
	// Await says that only the EndpointSlice can tell, for the reason Why, which names who is to blame. There are no
	// Checks then.
	Await bool
	Why   string

	// Checks must all succeed; there is at least one unless Await is set. They are asked of pods at StageRunning only.
	Checks []Check

	// Declared reports that the pod's readiness is about the port: that readiness probes, by which Kubernetes calls the
	// pod ready, are declared for it. Where they are not, and where the Service publishes addresses that are not ready,
	// Connect is what proves an endpoint of the slice.
	Declared bool
	Connect  Check // a connection to the port
}

// Check must succeed SuccessThreshold times (at least once) in a row. What it has shown holds until it fails
// FailureThreshold times in a row, asked once in each Period; where these are zero, they are kubelet's 3 times and 10 s.
type Check struct {
	probe.Check

	SuccessThreshold int
	FailureThreshold int
	Period           time.Duration
}

// PlanOf returns what proves that a pod can answer at an address, one of its IPs, and a port of it: the readiness probes
// of all its containers, as kubelet reads them, and a connection to the port where they are not about it.
// initialDelaySeconds is left out: it says when to ask first, and what a probe says before is true as well.
func PlanOf(p *corev1.Pod, address string, port int32) Plan {
	plan := Plan{Connect: Check{
		Check:            probe.Check{Kind: probe.TCP, Address: net.JoinHostPort(address, strconv.Itoa(int(port)))},
		SuccessThreshold: 1,
	}}
	plan.Declared = declared(p, port)
	plan.Why = whyAwait(p)
	for c := range lasting(p) {
		if c.ReadinessProbe == nil || plan.Why != "" {
			continue
		}
		check, why := checkOf(c, address)
		if why != "" {
			plan.Why = fmt.Sprintf("container %q: its readiness probe %s", c.Name, why)
		}
		plan.Checks = append(plan.Checks, check)
	}
	if plan.Why != "" {
		plan.Await, plan.Checks = true, nil
		return plan
	}
	if !plan.Declared {
		plan.Checks = append(plan.Checks, plan.Connect)
	}
	return plan
}

// TargetPort returns the pod's port to which a Service's port leads; false where the pod has no port of that name.
func TargetPort(s *corev1.ServicePort, p *corev1.Pod) (int32, bool) {
	if s.TargetPort.Type == intstr.Int {
		if s.TargetPort.IntVal == 0 {
			return s.Port, true
		}
		return s.TargetPort.IntVal, true
	}
	protocol := s.Protocol
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	named := func(own corev1.ContainerPort) bool {
		return own.Name == s.TargetPort.StrVal && (own.Protocol == protocol || own.Protocol == "" && protocol == corev1.ProtocolTCP)
	}
	// The endpoints' controller, too, looks into sidecars last.
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		if at := slices.IndexFunc(c.Ports, named); at >= 0 {
			return c.Ports[at].ContainerPort, true
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if at := slices.IndexFunc(c.Ports, named); at >= 0 && isSidecar(c) {
			return c.Ports[at].ContainerPort, true
		}
	}
	return 0, false
}

// declared reports that the readiness of a pod tells about the port: the container that declares the port has a readiness
// probe, or, where no container declares it, all have.
func declared(p *corev1.Pod, port int32) bool {
	all, containers := true, 0
	for c := range lasting(p) {
		if slices.ContainsFunc(c.Ports, func(own corev1.ContainerPort) bool { return own.ContainerPort == port }) {
			return c.ReadinessProbe != nil
		}
		containers++
		all = all && c.ReadinessProbe != nil
	}
	return all && containers > 0
}

// whyAwait returns why no probe of our own can tell that a pod is ready, or "".
func whyAwait(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) > 0 {
		return fmt.Sprintf("readiness gate %q: who opens it is not kubelet", p.Spec.ReadinessGates[0].ConditionType)
	}
	for name := range meshAnnotations() {
		if value, ok := p.Annotations[name]; ok && value != "false" && value != "disabled" {
			return fmt.Sprintf("annotation %q: a mesh stands before the pod", name)
		}
	}
	for c := range lasting(p) {
		if meshContainer(c.Name) {
			return fmt.Sprintf("container %q: a mesh's sidecar answers before the application does", c.Name)
		}
		if c.StartupProbe != nil {
			return fmt.Sprintf("container %q: it declares a startup probe", c.Name)
		}
	}
	return ""
}

// meshContainer knows the sidecars that accept connections for their pods.
func meshContainer(name string) bool {
	switch name {
	case "istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane", "envoy-sidecar":
		return true
	}
	return false
}

// meshAnnotations knows how meshes mark pods that they stand before, by a sidecar or from the node.
func meshAnnotations() map[string]struct{} {
	return map[string]struct{}{
		"sidecar.istio.io/status":                    {},
		"ambient.istio.io/redirection":               {},
		"linkerd.io/proxy-version":                   {},
		"kuma.io/sidecar-injected":                   {},
		"consul.hashicorp.com/connect-inject-status": {},
	}
}

// checkOf reads the readiness probe of a container as kubelet does (pkg/kubelet/prober, pkg/probe). It returns why only
// kubelet can ask, or "".
func checkOf(c *corev1.Container, address string) (check Check, why string) {
	declared := c.ReadinessProbe
	check.SuccessThreshold = int(max(declared.SuccessThreshold, 1))
	check.FailureThreshold = int(max(declared.FailureThreshold, 0))
	check.Period = time.Duration(max(declared.PeriodSeconds, 0)) * time.Second
	check.Timeout = time.Duration(max(declared.TimeoutSeconds, 0)) * time.Second // zero: kubelet's default, and the Check's
	switch {
	case declared.Exec != nil:
		return check, "runs a command in the container"
	case declared.HTTPGet != nil:
		why = readHTTP(&check, declared.HTTPGet, c, address)
	case declared.TCPSocket != nil:
		check.Kind = probe.TCP
		why = readAddress(&check, declared.TCPSocket.Host, declared.TCPSocket.Port, c, address)
	case declared.GRPC != nil:
		check.Kind = probe.GRPC
		if declared.GRPC.Service != nil {
			check.Service = *declared.GRPC.Service
		}
		why = readAddress(&check, "", intstr.FromInt32(declared.GRPC.Port), c, address)
	default:
		why = "is of a kind that is not known"
	}
	return check, why
}

func readHTTP(check *Check, get *corev1.HTTPGetAction, c *corev1.Container, address string) (why string) {
	check.Kind = probe.HTTP
	check.Scheme = strings.ToLower(string(get.Scheme))
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path}
	}
	check.Path = "/" + strings.TrimPrefix(u.EscapedPath(), "/")
	if u.RawQuery != "" || u.ForceQuery {
		check.Path += "?" + u.RawQuery
	}
	for _, h := range get.HTTPHeaders {
		if check.Header == nil {
			check.Header = make(http.Header)
		}
		check.Header.Add(textproto.CanonicalMIMEHeaderKey(h.Name), h.Value)
	}
	return readAddress(check, get.Host, get.Port, c, address)
}

func readAddress(check *Check, host string, port intstr.IntOrString, c *corev1.Container, address string) (why string) {
	if host != "" {
		return fmt.Sprintf("asks host %q instead of the pod", host)
	}
	number, ok := portOf(port, c)
	if !ok {
		return fmt.Sprintf("names port %q, which the container does not have", port.String())
	}
	check.Address = net.JoinHostPort(address, strconv.Itoa(number))
	return ""
}

// portOf resolves the port of a probe in its own container. A name that no port has may be a number.
func portOf(port intstr.IntOrString, c *corev1.Container) (int, bool) {
	number := int(port.IntVal)
	if port.Type == intstr.String {
		i := slices.IndexFunc(c.Ports, func(own corev1.ContainerPort) bool { return own.Name == port.StrVal })
		if i >= 0 {
			number = int(c.Ports[i].ContainerPort)
		} else if parsed, err := strconv.Atoi(port.StrVal); err == nil {
			number = parsed
		}
	}
	return number, number > 0 && number < 65536
}
