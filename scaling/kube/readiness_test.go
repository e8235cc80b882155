package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
)

// TestReadiness has what proves that an endpoint can answer.
func TestReadiness(t *testing.T) {
	p := startPlane(t)
	for name, test := range map[string]func(*testing.T, *plane){
		"a pod that answers its probe is used before kubelet says so":              testOwnProbe,
		"nobody asks a pod that nobody waits for":                                  testNobodyWaits,
		"a pod that stops to answer its probe before kubelet says so is taken out": testOwnProbeFails,
		"requests that begin to wait have pods asked":                              testAwaited,
		"a probe that runs a command is kubelet's":                                 testExec,
		"readiness.mode Endpoints awaits the slice":                                testModeEndpoints,
		"a pod that lost its readiness has to get it from the slice":               testLost,
		"a pod without a probe is used when it listens":                            testNoProbe,
		"published addresses are used when they listen":                            testPublishNotReady,
		"an endpoint that refuses comes back when it listens":                      testSuspect,
		"a pod of two addresses is asked at the one that the Service prefers":      testDualStack,
		"a pod that has proven itself and then crashes is not used":                testCrashAfterProof,
		"published addresses of pods that crash do not hide the crash":             testPublishedCrash,
		"a pod of another port is asked at the port":                               testOtherPort,
		"unreachable pods of others delay nobody":                                  testUnreachable,
		"a pod is asked as often as its success threshold says":                    testThreshold,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

const (
	never  = time.Duration(-1) // kubelet does not say ready
	listen = 300 * time.Millisecond
)

func probeOf(change func(*corev1.Probe)) func(*appsv1.Deployment, *corev1.Service) {
	return func(d *appsv1.Deployment, _ *corev1.Service) {
		change(d.Spec.Template.Spec.Containers[0].ReadinessProbe)
	}
}

func noProbe(d *appsv1.Deployment, _ *corev1.Service) {
	d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
}

func isListed(e *scaling.Endpoints) bool {
	return len(e.Pending) == 1 && e.Pending[0].Stage == scaling.StageRunning
}

func isReady(e *scaling.Endpoints) bool { return len(e.Ready) > 0 }

func testOwnProbe(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never, listen: listen})
	seen := w.watch()
	w.scale(service, 1)
	ready := seen.awaitReady(service.Key, 1)
	if pods := w.pods(t.Context(), "shop"); len(pods) != 1 || ready.Ready[0].ID != string(pods[0].UID) ||
		ready.Ready[0].Address != netip.AddrPortFrom(netip.MustParseAddr(pods[0].Status.PodIP), appPort).String() {
		t.Errorf("got %+v, want the UID and the address of the pod", ready.Ready)
	}
	stages := []scaling.Stage{}
	for _, e := range seen.history(service.Key) {
		for _, pending := range e.Pending {
			stages = append(stages, pending.Stage)
		}
	}
	if len(stages) == 0 || stages[len(stages)-1] != scaling.StageRunning {
		t.Errorf("got the stages %v, want them to end with running", stages)
	}
	// Though nobody waits any more, and though the slice never says so, it stays.
	w.setWaiting(0)
	elapse(interest + 2*lookAgain)
	if last := seen.history(service.Key); !isReady(last[len(last)-1].Endpoints) {
		t.Errorf("later: got %+v, want it ready", last[len(last)-1].Endpoints)
	}
}

func testOwnProbeFails(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never}, probeOf(func(p *corev1.Probe) {
		p.HTTPGet.Path, p.PeriodSeconds, p.FailureThreshold = "/probe", 1, 2
	}))
	seen := w.watch()
	w.scale(service, 1)
	ready := seen.awaitReady(service.Key, 1)
	w.node.fail(w.app("shop"), true) // it listens, and says that it loads
	failing := time.Now()
	gone := seen.await(service.Key, "it to be taken out", isListed)
	if took := gone.at.Sub(failing); took < time.Second {
		t.Errorf("taken out %v after its probe began to fail, want 2 failures, 1 s apart", took)
	}
	w.node.fail(w.app("shop"), false)
	if again := seen.awaitReady(service.Key, 1); again.Ready[0] != ready.Ready[0] {
		t.Errorf("got %+v, want %+v", again.Ready, ready.Ready)
	}
}

func testNobodyWaits(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: 2 * time.Second})
	seen := w.watch()
	w.scale(service, 1)
	listed := seen.await(service.Key, "it to run", isListed)
	if ready := seen.awaitReady(service.Key, 1); ready.at.Sub(listed.at) < time.Second {
		t.Errorf("ready %v after it ran, want kubelet's 2 s", ready.at.Sub(listed.at))
	}
}

func testAwaited(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never})
	seen := w.watch()
	w.scale(service, 1)
	seen.await(service.Key, "it to run", isListed)
	elapse(300 * time.Millisecond)
	seen.never(service.Key, "ready although nobody waits", isReady)
	w.backend.Awaited(service.Key)
	seen.awaitReady(service.Key, 1)
}

func testExec(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: 2 * time.Second}, probeOf(func(p *corev1.Probe) {
		p.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
	}))
	seen := w.watch()
	w.scale(service, 1)
	listed := seen.await(service.Key, "it to run", isListed)
	if ready := seen.awaitReady(service.Key, 1); ready.at.Sub(listed.at) < time.Second {
		t.Errorf("ready %v after it ran, want kubelet's 2 s", ready.at.Sub(listed.at))
	}
}

func testModeEndpoints(t *testing.T, p *plane) {
	w := p.world(t, 1)
	w.deploy("shop", scaling.Replicas{}, manner{slow: 2 * time.Second})
	service := w.define("shop", scaling.Replicas{}, func(d *Definition) { d.AwaitEndpoints = true })
	seen := w.watch()
	w.scale(service, 1)
	listed := seen.await(service.Key, "it to run", isListed)
	if ready := seen.awaitReady(service.Key, 1); ready.at.Sub(listed.at) < time.Second {
		t.Errorf("ready %v after it ran, want kubelet's 2 s", ready.at.Sub(listed.at))
	}
}

func testLost(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{})
	seen := w.watch()
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	w.node.treat(w.app("shop"), manner{slow: never})
	w.node.order(w.app("shop"), "unready")
	seen.await(service.Key, "it to be unready", isListed)
	elapse(500 * time.Millisecond)
	if last := seen.history(service.Key); isReady(last[len(last)-1].Endpoints) {
		t.Error("it answers its probe, but kubelet has taken it out for a reason; it was used")
	}
	w.node.treat(w.app("shop"), manner{})
	w.node.order(w.app("shop"), "ready")
	seen.awaitReady(service.Key, 1)
}

func testNoProbe(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{deaf: true, eager: true}, noProbe)
	seen := w.watch()
	w.scale(service, 1)
	w.awaitSliceReady("shop")
	elapse(300 * time.Millisecond)
	seen.never(service.Key, "ready before it listens", isReady)
	w.node.order(w.app("shop"), "answer")
	seen.awaitReady(service.Key, 1)
}

func testPublishNotReady(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{deaf: true}, func(_ *appsv1.Deployment, s *corev1.Service) {
		s.Spec.PublishNotReadyAddresses = true
	})
	seen := w.watch()
	w.scale(service, 1)
	w.awaitSliceReady("shop")
	elapse(300 * time.Millisecond)
	seen.never(service.Key, "ready before it listens", isReady)
	w.node.treat(w.app("shop"), manner{slow: never})
	w.node.order(w.app("shop"), "ready")
	seen.awaitReady(service.Key, 1)
}

func testSuspect(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{eager: true}, noProbe)
	seen := w.watch()
	w.scale(service, 1)
	before := seen.awaitReady(service.Key, 1)
	w.node.order(w.app("shop"), "refuse") // and kubelet goes on saying ready
	w.awaitDeaf(before.Ready[0].Address)
	w.backend.Suspect(service.Key, before.Ready[0].ID)
	seen.await(service.Key, "it to be set aside", func(e *scaling.Endpoints) bool { return len(e.Ready) == 0 && len(e.Pending) == 1 })
	w.node.order(w.app("shop"), "answer")
	if after := seen.awaitReady(service.Key, 1); after.Ready[0] != before.Ready[0] {
		t.Errorf("got %+v, want %+v", after.Ready, before.Ready)
	}
}

func testDualStack(t *testing.T, p *plane) {
	w := p.world(t, 1)
	// An API server of one family takes no Service of two; its pods may have two addresses all the same.
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never, families: []string{"6", "4"}})
	seen := w.watch()
	w.scale(service, 1)
	ready := seen.awaitReady(service.Key, 1)
	if address := netip.MustParseAddrPort(ready.Ready[0].Address); !address.Addr().Is4() {
		t.Errorf("got %v, want the Service's family", address)
	}
}

func testThreshold(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never}, probeOf(func(p *corev1.Probe) {
		p.SuccessThreshold = 3
		p.HTTPGet.Path, p.HTTPGet.Port = "/probe", intstr.FromInt32(appPort)
	}))
	seen := w.watch()
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	if probes := w.node.probes(w.app("shop")); probes != 3 {
		t.Errorf("asked %d times, want 3", probes)
	}
}

func testCrashAfterProof(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never})
	seen := w.watch()
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	w.node.treat(w.app("shop"), manner{waiting: waitingFor("CrashLoopBackOff", "")})
	w.node.order(w.app("shop"), "crashed")
	seen.awaitReady(service.Key, 0)
}

func testPublishedCrash(t *testing.T, p *plane) {
	w := p.world(t, 1)
	service := w.deploy("shop", scaling.Replicas{}, manner{crashing: true}, func(_ *appsv1.Deployment, s *corev1.Service) {
		s.Spec.PublishNotReadyAddresses = true
	})
	seen := w.watch()
	w.scale(service, 1)
	seen.await(service.Key, "the failure", failedFor(scaling.ReasonCrashLoop))
}

func testOtherPort(t *testing.T, p *plane) {
	w := p.world(t, 0)
	service := w.deploy("shop", scaling.Replicas{}, manner{}, func(d *appsv1.Deployment, s *corev1.Service) {
		pod := &d.Spec.Template.Spec
		pod.Containers = append(pod.Containers, corev1.Container{Name: "admin", Image: "app", Ports: []corev1.ContainerPort{{ContainerPort: appPort + 1}}})
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81, TargetPort: intstr.FromInt32(appPort + 1)})
	})
	port := intstr.FromString("http")
	w.define("shop", scaling.Replicas{}, func(d *Definition) { d.Port = &port })
	seen := w.watch()
	w.scale(service, 1)
	seen.awaitReady(service.Key, 1)
	// The container of the other port has no readiness probe, and nobody listens there.
	admin := intstr.FromInt32(81)
	w.define("shop", scaling.Replicas{}, func(d *Definition) { d.Port = &admin })
	refused := func(e *scaling.Endpoints) bool { return len(e.Ready) == 0 && len(e.Pending) == 1 }
	seen.await(service.Key, "the other port", refused)

	// So it is where the Service leads to another port of the pod.
	w.define("shop", scaling.Replicas{}, func(d *Definition) { d.Port = &port })
	seen.awaitReady(service.Key, 1)
	patch := fmt.Appendf(nil, `{"spec":{"ports":[{"port":80,"targetPort":%d}]}}`, appPort+1)
	if _, err := w.kube.Kube.CoreV1().Services(w.namespace).Patch(t.Context(), "shop", types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	before := len(seen.history(service.Key))
	seen.await(service.Key, "the other target port", refused)
	for _, e := range seen.history(service.Key)[before:] {
		if isReady(e.Endpoints) && !strings.HasSuffix(e.Ready[0].Address, fmt.Sprint(appPort)) {
			t.Errorf("a port at which nobody listens is ready: %+v", e.Endpoints)
		}
	}
}

// testUnreachable has pods at addresses that nobody answers from, so that each probe takes its whole second.
func testUnreachable(t *testing.T, p *plane) {
	w := p.world(t, 1)
	for n := range 40 {
		name := fmt.Sprintf("dead-%d", n)
		w.scale(w.deploy(name, scaling.Replicas{}, manner{slow: never, unreachable: true}), 1)
	}
	seen := w.watch()
	for n := range 40 {
		seen.await(scaling.Key{Namespace: w.namespace, Name: fmt.Sprintf("dead-%d", n)}, "it to run", isListed)
	}
	service := w.deploy("shop", scaling.Replicas{}, manner{slow: never})
	w.scale(service, 1)
	listed := seen.await(service.Key, "it to run", func(e *scaling.Endpoints) bool { return isListed(e) || isReady(e) })
	ready := seen.awaitReady(service.Key, 1)
	if took := ready.at.Sub(listed.at); took > time.Second {
		t.Errorf("ready %v after it ran; a probe of an unreachable pod takes 1 s", took)
	}
}
