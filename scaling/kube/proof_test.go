package kube

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling/probe"
)

func TestWhatProvesAnEndpoint(t *testing.T) {
	address := netip.MustParseAddrPort("10.0.0.1:8080")
	running := func(change func(*corev1.Pod)) *corev1.Pod {
		p := livePod("a", "10.0.0.1")
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8081)}}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		if change != nil {
			change(p)
		}
		return p
	}
	ready := func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	const enough, goesOn, slices, connect, health, both = "enough", "enough while its probe goes on to succeed", "the slice's word", "a connection", "the probe", "the probe and a connection"

	for _, c := range []struct {
		what      string
		c         candidate
		m         member
		published bool
		waiting   bool
		await     bool
		want      string
	}{
		{what: "ready by a probe", c: candidate{ready: true}, m: member{declared: 8080}, want: enough},
		{what: "ready by a probe of another port", c: candidate{ready: true}, m: member{declared: 8081}, want: connect},
		{what: "ready by a probe, and refused a connection", c: candidate{ready: true}, m: member{declared: 8080, suspect: true}, want: connect},
		{what: "ready by a probe, or published without", c: candidate{ready: true}, m: member{declared: 8080}, published: true, want: connect},
		{what: "ready without a probe", c: candidate{ready: true}, want: connect},
		{what: "ready without a probe, and listens", c: candidate{ready: true}, m: member{proven: address}, want: enough},
		{what: "ready without a probe, and listened elsewhere", c: candidate{ready: true}, m: member{proven: netip.MustParseAddrPort("10.0.0.1:9")}, want: connect},
		{what: "not ready, and not watched", waiting: true, want: slices},
		{what: "not ready", c: candidate{pod: running(nil)}, waiting: true, want: health},
		{what: "not ready, and nobody waits", c: candidate{pod: running(nil)}, want: slices},
		{what: "not ready, where slices are awaited", c: candidate{pod: running(nil)}, waiting: true, await: true, want: slices},
		{what: "not ready, and proven", c: candidate{pod: running(nil)}, m: member{proven: address}, waiting: true, want: goesOn},
		{what: "not ready, proven, and nobody waits any more", c: candidate{pod: running(nil)}, m: member{proven: address}, want: goesOn},
		{what: "not ready, and proven before slices were awaited", c: candidate{pod: running(nil)}, m: member{proven: address}, await: true, want: slices},
		{what: "not ready, proven, and refused a connection", c: candidate{pod: running(nil)}, m: member{suspect: true}, waiting: true, want: both},
		{what: "ready before, and not any more", c: candidate{pod: running(nil), listed: true}, m: member{wasReady: true, proven: address}, waiting: true, want: slices},
		{what: "ready before the slices said so, and not any more", c: candidate{pod: running(nil), listed: true}, m: member{wasEarly: true, proven: address}, waiting: true, want: slices},
		{what: "lost, and kubelet says ready before the slice does", c: candidate{pod: running(ready)}, m: member{lost: true}, waiting: true, want: slices},
		{what: "lost, and a slice is late", c: candidate{ready: true, listed: true, pod: running(nil)}, m: member{lost: true, declared: 8080}, waiting: true, want: slices},
		{what: "lost, and both say ready again", c: candidate{ready: true, listed: true, pod: running(ready)}, m: member{lost: true, declared: 8080}, want: enough},
		{what: "lost, and the slice says ready of a pod that is not watched", c: candidate{ready: true, listed: true}, m: member{lost: true, declared: 8080}, want: enough},
		{what: "lost, and published all the same", c: candidate{ready: true, listed: true, pod: running(nil)}, m: member{lost: true, declared: 8080}, published: true, want: connect},
		{
			what: "ready before, not any more, but of another process", c: candidate{pod: running(nil), listed: true},
			m: member{wasReady: true, renewed: true}, waiting: true, want: health,
		},
		{what: "kubelet says ready before the slice does", c: candidate{pod: running(ready)}, m: member{declared: 8080}, want: enough},
		{what: "kubelet says so without a probe", c: candidate{pod: running(ready)}, want: connect},
		{what: "kubelet says so, but slices are awaited", c: candidate{pod: running(ready)}, m: member{declared: 8080}, await: true, want: slices},
		{
			what: "a probe that only kubelet can make", waiting: true, want: slices,
			c: candidate{pod: running(func(p *corev1.Pod) {
				p.Spec.Containers[0].ReadinessProbe.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{}}
			})},
		},
		{
			what: "one of its containers does not run yet", waiting: true, want: slices,
			c: candidate{pod: running(func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other"}) })},
		},
		{
			what: "its only container may run, though kubelet does not say so yet", waiting: true, want: health,
			c: candidate{pod: running(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil })},
		},
	} {
		c.c.uid, c.c.address, c.c.verified = "a", address, true
		r := &round{service: &service{}, definition: &Definition{AwaitEndpoints: c.await}, publishNotReady: c.published, waiting: c.waiting, now: time.Now()}
		proof := r.proofOf(&c.c, &c.m)
		got := slices
		if proof.enough {
			got = enough
		}
		if proof.enough && len(proof.checks) == 1 && proof.checks[0].Kind == probe.HTTP {
			got, proof.checks = goesOn, nil
		}
		for i, check := range proof.checks {
			switch {
			case check.Kind == probe.TCP && check.Address == address.String() && i == 0:
				got = connect
			case check.Kind == probe.HTTP && check.Address == "10.0.0.1:8081" && i == 0:
				got = health
			case check.Kind == probe.TCP && check.Address == address.String() && i == 1 && got == health:
				got = both
			default:
				t.Errorf("%s: got check %+v", c.what, check.Check)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
}

func TestNothingProvesAnAddressThatIsNotItsPods(t *testing.T) {
	r := &round{service: &service{}, definition: &Definition{}}
	c := &candidate{ready: true, listed: true, address: netip.MustParseAddrPort("10.0.0.1:80")}
	if proof := r.proofOf(c, &member{declared: 80, proven: c.address}); proof.enough || len(proof.checks) > 0 {
		t.Errorf("got %+v, want nothing to be enough, and nobody asked", proof)
	}
}
