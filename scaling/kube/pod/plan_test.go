package pod

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/probe"
)

const address = "10.1.2.3"

func TestAPodWithoutReadinessProbeIsProvenByAConnection(t *testing.T) {
	plan := PlanOf(newPod(), address, 8080)
	want := Plan{Checks: []Check{tcpCheck("10.1.2.3:8080")}, Connect: tcpCheck("10.1.2.3:8080")}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got %+v, want %+v", plan, want)
	}
	if plan := PlanOf(newPod(), "fd00::1", 80); plan.Checks[0].Address != "[fd00::1]:80" {
		t.Errorf("got %q", plan.Checks[0].Address)
	}
}

func TestAReadinessProbeIsReadAsKubeletDoes(t *testing.T) {
	service := "shop.Cart"
	check := func(c probe.Check, successes int) Check { return Check{Check: c, SuccessThreshold: successes} }
	handler := func(h corev1.ProbeHandler) *corev1.Probe { return &corev1.Probe{ProbeHandler: h} }
	for what, test := range map[string]struct {
		probe *corev1.Probe
		want  Check
	}{
		"as the API fills it in": {
			&corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080), Scheme: corev1.URISchemeHTTP}},
				TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
			},
			Check{
				Check:            probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:8080", Scheme: "http", Path: "/healthz", Timeout: time.Second},
				SuccessThreshold: 1, FailureThreshold: 3, Period: 10 * time.Second,
			},
		},
		"over TLS, patiently, three times": {
			&corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8443), Scheme: corev1.URISchemeHTTPS}},
				TimeoutSeconds: 7, SuccessThreshold: 3,
			},
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:8443", Scheme: "https", Path: "/", Timeout: 7 * time.Second}, 3),
		},
		"a port by its name": {httpProbe("/", intstr.FromString("http")), check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:8080", Path: "/"}, 1)},
		"a number as a name": {httpProbe("/", intstr.FromString("81")), check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:81", Path: "/"}, 1)},
		"another port":       {httpProbe("/", intstr.FromInt32(9000)), check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:9000", Path: "/"}, 1)},
		"a path with a query": {
			httpProbe("healthz?deep=1&a=%20b", intstr.FromInt32(80)),
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/healthz?deep=1&a=%20b"}, 1),
		},
		"an escaped path": {
			httpProbe("/a%2Fb/c%20d", intstr.FromInt32(80)),
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/a%2Fb/c%20d"}, 1),
		},
		"a bare question mark": {httpProbe("/x?", intstr.FromInt32(80)), check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/x?"}, 1)},
		"a path that is no URL": {
			httpProbe("/100%", intstr.FromInt32(80)),
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/100%25"}, 1),
		},
		"a path that names a host": {
			httpProbe("http://elsewhere.example.com/x", intstr.FromInt32(80)),
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/x"}, 1),
		},
		"header fields": {
			handler(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80), HTTPHeaders: []corev1.HTTPHeader{
				{Name: "host", Value: "shop.example.com"}, {Name: "x-a", Value: "1"}, {Name: "X-A", Value: "2"},
			}}}),
			check(probe.Check{Kind: probe.HTTP, Address: "10.1.2.3:80", Path: "/", Header: http.Header{"Host": {"shop.example.com"}, "X-A": {"1", "2"}}}, 1),
		},
		"TCP":  {handler(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}), check(probe.Check{Kind: probe.TCP, Address: "10.1.2.3:8080"}, 1)},
		"gRPC": {handler(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090}}), check(probe.Check{Kind: probe.GRPC, Address: "10.1.2.3:9090"}, 1)},
		"gRPC of a service": {
			handler(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090, Service: &service}}),
			check(probe.Check{Kind: probe.GRPC, Address: "10.1.2.3:9090", Service: "shop.Cart"}, 1),
		},
	} {
		plan := PlanOf(newPod(readiness(test.probe)), address, 8080)
		want := Plan{Declared: true, Checks: []Check{test.want}, Connect: tcpCheck("10.1.2.3:8080")}
		if !reflect.DeepEqual(plan, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", what, plan, want)
		}
	}
}

func TestTheSlicesWordIsAwaitedWhereOnlyKubernetesCanTell(t *testing.T) {
	annotated := func(name, value string) option {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{name: value} }
	}
	handler := func(h corev1.ProbeHandler) option { return readiness(&corev1.Probe{ProbeHandler: h}) }
	for _, test := range []struct {
		what string
		pod  *corev1.Pod
		why  string
	}{
		{"exec", newPod(handler(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}})), "runs a command"},
		{"HTTP host", newPod(handler(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Port: intstr.FromInt32(80)}})), `host "127.0.0.1"`},
		{"TCP host", newPod(handler(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "db", Port: intstr.FromInt32(80)}})), `host "db"`},
		{"no such port name", newPod(readiness(httpProbe("/", intstr.FromString("admin")))), `port "admin"`},
		{"no such port", newPod(readiness(httpProbe("/", intstr.FromInt32(70000)))), `port "70000"`},
		{"a kind of the future", newPod(readiness(&corev1.Probe{})), "not known"},
		{"startup probe", newPod(func(p *corev1.Pod) { p.Spec.Containers[0].StartupProbe = httpProbe("/", intstr.FromInt32(80)) }), "startup probe"},
		{"startup probe of a sidecar", newPod(initially("log", true, running(), 0), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].StartupProbe = httpProbe("/", intstr.FromInt32(80))
		}), `"log"`},
		{"readiness gate", newPod(func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "lb.example.com/attached"}}
		}), "lb.example.com/attached"},
		{"istio", newPod(beside(corev1.Container{Name: "istio-proxy"}, running())), "istio-proxy"},
		{"istio as a sidecar", newPod(initially("istio-proxy", true, running(), 0)), "istio-proxy"},
		{"linkerd", newPod(beside(corev1.Container{Name: "linkerd-proxy"}, running())), "linkerd-proxy"},
		{"istio by annotation", newPod(annotated("sidecar.istio.io/status", `{"containers":["proxy"]}`)), "sidecar.istio.io/status"},
		{"istio on the node", newPod(annotated("ambient.istio.io/redirection", "enabled")), "ambient.istio.io/redirection"},
		{"kuma", newPod(annotated("kuma.io/sidecar-injected", "true")), "kuma"},
		{"one of two probes", newPod(readiness(httpProbe("/", intstr.FromInt32(80))), beside(corev1.Container{
			Name: "log", ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}},
		}, running())), `"log"`},
	} {
		plan := PlanOf(test.pod, address, 8080)
		if !plan.Await || len(plan.Checks) != 0 || !strings.Contains(plan.Why, test.why) || plan.Connect.Address != "10.1.2.3:8080" {
			t.Errorf("%s: got %+v, want that the slice is awaited for %q", test.what, plan, test.why)
		}
	}
	for what, p := range map[string]*corev1.Pod{
		"a mesh that was left out":                newPod(annotated("kuma.io/sidecar-injected", "false")),
		"an init container's probe means nothing": newPod(initially("setup", false, ended(0, "Completed", ""), 0), func(p *corev1.Pod) { p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{} }),
		"a liveness probe":                        newPod(func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = &corev1.Probe{} }),
	} {
		if plan := PlanOf(p, address, 8080); plan.Await {
			t.Errorf("%s: the slice is awaited, since %s", what, plan.Why)
		}
	}
}

// A probe of one container says nothing of a port that another one has.
func TestEveryContainersProbeCountsAndThePortIsProvenToo(t *testing.T) {
	port := func(n int32) []corev1.ContainerPort { return []corev1.ContainerPort{{ContainerPort: n}} }
	metrics := corev1.Container{Name: "metrics", Ports: port(9100), ReadinessProbe: httpProbe("/m", intstr.FromInt32(9100))}
	silent := corev1.Container{Name: "silent"}
	for _, test := range []struct {
		what     string
		pod      *corev1.Pod
		port     int32
		declared bool
		asked    string // in this order
	}{
		{"both have one", newPod(readiness(httpProbe("/", intstr.FromInt32(8080))), beside(metrics, running())), 8080, true, ":8080/ :9100/m"},
		{"a sidecar's is asked too", newPod(readiness(httpProbe("/", intstr.FromInt32(8080))), initially("log", true, running(), 0), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].ReadinessProbe = httpProbe("/log", intstr.FromInt32(1))
		}), 8080, true, ":1/log :8080/"},
		{"only the other one has one", newPod(beside(metrics, running())), 8080, false, ":9100/m :8080"},
		{"the port is the other one's", newPod(beside(metrics, running())), 9100, true, ":9100/m"},
		{"a silent one beside", newPod(readiness(httpProbe("/", intstr.FromInt32(8080))), beside(silent, running())), 8080, true, ":8080/"},
		{"nobody declares the port, and one is silent", newPod(readiness(httpProbe("/", intstr.FromInt32(8080))), beside(silent, running())), 8081, false, ":8080/ :8081"},
		{"nobody declares the port, and none is silent", newPod(readiness(httpProbe("/", intstr.FromInt32(8080)))), 8081, true, ":8080/"},
	} {
		plan := PlanOf(test.pod, address, test.port)
		var asked []string
		for _, c := range plan.Checks {
			asked = append(asked, strings.TrimPrefix(c.Address, address)+c.Path)
		}
		if got := strings.Join(asked, " "); got != test.asked || plan.Declared != test.declared || plan.Await {
			t.Errorf("%s: asks %q (declared %t), want %q (%t)", test.what, got, plan.Declared, test.asked, test.declared)
		}
	}
}

func TestAServicesPortLeadsToAPodsPort(t *testing.T) {
	p := newPod(
		initially("setup", false, ended(0, "Completed", ""), 0),
		initially("proxy", true, running(), 0),
		func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Ports = []corev1.ContainerPort{{Name: "gone", ContainerPort: 1}}
			p.Spec.InitContainers[1].Ports = []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15001}, {Name: "http", ContainerPort: 15002}}
			p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports,
				corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
				corev1.ContainerPort{Name: "dns", ContainerPort: 5353})
		},
	)
	for _, test := range []struct {
		port corev1.ServicePort
		want int32 // 0: none
	}{
		{corev1.ServicePort{Port: 80}, 80},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromInt32(8081)}, 8081},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("http")}, 8080},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("http"), Protocol: corev1.ProtocolTCP}, 8080},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("proxy")}, 15001},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("dns")}, 5353},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("gone")}, 0},
		{corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("nothing")}, 0},
	} {
		got, ok := TargetPort(&test.port, p)
		if got != test.want || ok != (test.want != 0) {
			t.Errorf("%+v: got %d, %t, want %d", test.port, got, ok, test.want)
		}
	}
}
