package pod

import (
	"encoding/json"
	"net"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// Pods are written by tenants, and their status by anybody's kubelet: nothing that decodes may bring us down, or have us
// connect to another address than the pod's.
func FuzzAnyPodIsRead(f *testing.F) {
	for _, p := range []*corev1.Pod{
		{},
		newPod(readiness(httpProbe("/healthz?a=b", intstr.FromString("http"))), initially("log", true, running(), 1)),
		newPod(app(waits("ImagePullBackOff", "")), restarted(4), before(ended(1, "StartError", `exec: "x": not found`))),
		newPod(beside(corev1.Container{Name: "app"}, waits("CrashLoopBackOff", ""))), // the name twice
		newPod(unscheduled("Unschedulable"), func(p *corev1.Pod) { p.Spec.Containers = nil }),
	} {
		text, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, int32(8080), "http")
	}
	f.Add([]byte(`{"spec":{"containers":[{"readinessProbe":{"httpGet":{"path":"//evil.example.com:1/x","port":-1}}}]}}`), int32(-1), "")
	f.Fuzz(func(t *testing.T, text []byte, port int32, name string) {
		p := &corev1.Pod{}
		if json.Unmarshal(text, p) != nil {
			return
		}
		var h History
		for range 2 {
			if f := h.Failure(p); Terminating(p) && f != nil {
				t.Errorf("a pod that ends fails: %v", f)
			}
		}
		Stage(p)
		Ready(p)
		Late(p)
		TargetPort(&corev1.ServicePort{Port: port, TargetPort: intstr.FromString(name)}, p)
		plan := PlanOf(p, address, port)
		if plan.Await == (len(plan.Checks) > 0) || plan.Await != (plan.Why != "") {
			t.Errorf("neither checks nor awaits, or both: %+v", plan)
		}
		for _, c := range plan.Checks {
			host, _, err := net.SplitHostPort(c.Address)
			if err != nil || host != address || c.SuccessThreshold < 1 || c.Timeout < 0 || c.Kind == probe.HTTP && (c.Path == "" || c.Path[0] != '/') {
				t.Errorf("asks %+v", c)
			}
		}
	})
}
