package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ServicePort returns the port of a Service that is wanted: by its name, by its number, or, where wanted is nil, as the only
// one. Ports for other protocols than TCP are passed over: the same number may be there for UDP as well. Where there is
// none, why says so to people, and what would be right. The port is the Service's own: it must not be changed.
func ServicePort(s *corev1.Service, wanted *intstr.IntOrString) (port *corev1.ServicePort, why string) {
	name := s.Namespace + "/" + s.Name
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, fmt.Sprintf("Service %s is of type ExternalName, which has no endpoints; name one that selects pods", name)
	}
	var found, other *corev1.ServicePort
	several := false
	for i := range s.Spec.Ports {
		switch port := &s.Spec.Ports[i]; {
		case wanted != nil && wanted.Type == intstr.String && port.Name != wanted.StrVal,
			wanted != nil && wanted.Type == intstr.Int && port.Port != wanted.IntVal:
		case !isTCP(port):
			other = port
		default:
			several = found != nil
			found = port
		}
	}
	switch {
	case several:
		return nil, fmt.Sprintf("Service %s has several ports (%s); set spec.service.port to one of them", name, portNames(s))
	case found != nil:
		return found, ""
	case other != nil:
		return nil, fmt.Sprintf("port %d of Service %s is for %s; name one for TCP (it has %s)", other.Port, name, other.Protocol, portNames(s))
	case wanted == nil:
		return nil, fmt.Sprintf("Service %s has no port; it needs one", name)
	}
	return nil, fmt.Sprintf("Service %s has no port %s; it has %s", name, wanted, portNames(s))
}

func isTCP(p *corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolTCP || p.Protocol == "" }

// portNames has what may be wanted.
func portNames(s *corev1.Service) string {
	var names []string
	for i := range s.Spec.Ports {
		if port := &s.Spec.Ports[i]; isTCP(port) {
			names = append(names, strings.TrimSpace(fmt.Sprintf("%s %d", port.Name, port.Port)))
		}
	}
	if len(names) == 0 {
		return "none for TCP"
	}
	return strings.Join(names, ", ")
}
