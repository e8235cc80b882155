package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// HTTP/3 has its TCP port's number, and may stand before it.
func TestTheServicesPortIsOneForTCP(t *testing.T) {
	http, metrics := corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "metrics", Port: 9090}
	h3 := corev1.ServicePort{Name: "h3", Port: 443, Protocol: corev1.ProtocolUDP}
	https := corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}
	for what, test := range map[string]struct {
		ports  []corev1.ServicePort
		wanted *intstr.IntOrString
		want   string // its name
		says   string // or why there is none
	}{
		"the only one":              {ports: []corev1.ServicePort{http}, want: "http"},
		"the only one for TCP":      {ports: []corev1.ServicePort{h3, https}, want: "https"},
		"by name":                   {ports: []corev1.ServicePort{http, metrics}, wanted: new(intstr.FromString("metrics")), want: "metrics"},
		"by number":                 {ports: []corev1.ServicePort{http, metrics}, wanted: new(intstr.FromInt32(80)), want: "http"},
		"a number of UDP's as well": {ports: []corev1.ServicePort{h3, https}, wanted: new(intstr.FromInt32(443)), want: "https"},
		"UDP's second":              {ports: []corev1.ServicePort{https, h3}, wanted: new(intstr.FromInt32(443)), want: "https"},
		"several":                   {ports: []corev1.ServicePort{http, metrics}, says: "has several ports (http 80, metrics 9090)"},
		"a name for UDP":            {ports: []corev1.ServicePort{h3, https}, wanted: new(intstr.FromString("h3")), says: "is for UDP; name one for TCP (it has https 443)"},
		"UDP alone":                 {ports: []corev1.ServicePort{h3}, says: "port 443 of Service web/shop is for UDP"},
		"none":                      {says: "Service web/shop has no port"},
		"none of the name":          {ports: []corev1.ServicePort{http}, wanted: new(intstr.FromString("grpc")), says: "has no port grpc; it has http 80"},
		"a number in quotes":        {ports: []corev1.ServicePort{http}, wanted: new(intstr.FromString("80")), says: "has no port 80"},
	} {
		t.Run(what, func(t *testing.T) {
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "shop"}, Spec: corev1.ServiceSpec{Ports: test.ports}}
			got, why := ServicePort(s, test.wanted)
			switch {
			case test.says != "":
				if got != nil || !strings.Contains(why, test.says) {
					t.Errorf("got %+v, %q; want none: %s", got, why, test.says)
				}
			case got == nil || got.Name != test.want || why != "":
				t.Errorf("got %+v, %q; want %s", got, why, test.want)
			}
			s.Spec.Type = corev1.ServiceTypeExternalName
			if got, why := ServicePort(s, test.wanted); got != nil || !strings.Contains(why, "ExternalName") {
				t.Errorf("an ExternalName has %+v, %q", got, why)
			}
		})
	}
}
