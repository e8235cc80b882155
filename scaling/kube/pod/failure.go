package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

// What repeats before it is a failure.
const (
	enoughPulls    = 2
	enoughRestarts = 3
)

// Reasons that kubelet gives for a waiting container (pkg/kubelet/container/sync_result.go and images/types.go).
const (
	reasonInvalidImage  = "InvalidImageName"
	reasonNeverPull     = "ErrImageNeverPull"
	reasonPull          = "ErrImagePull"
	reasonPullBackOff   = "ImagePullBackOff"
	reasonInspect       = "ImageInspectError"
	reasonNoRegistry    = "RegistryUnavailable"
	reasonBadSignature  = "SignatureValidationFailed"
	reasonCreateConfig  = "CreateContainerConfigError"
	reasonCreate        = "CreateContainerError"
	reasonRun           = "RunContainerError"
	reasonCrashLoop     = "CrashLoopBackOff"
	reasonStartError    = "StartError"         // containerd's, of a container that ended before it ran
	reasonContainerdRun = "ContainerCannotRun" // the same of others
)

// History is what one pod has been through during one wake: a Pod shows that an image could not be pulled, but not how
// often. Its zero value is a wake's beginning; what the first Pod shown to it went through before does not count. It has
// one owner.
type History struct {
	seen       bool
	containers map[string]*past
}

// past is of one container.
type past struct {
	restarts int32 // before the wake
	pulls    int   // failed ones
	last     string
}

// Failure notes what a Pod shows, and returns why it cannot start; nil while it may still come up. Some causes are
// final at once: no valid image name, an image that may not be pulled, a configuration that is at fault. Others are when
// repeated: 2 failed pulls, 3 restarts. A pod that nothing was found for yet, or that ends, has no failure.
func (h *History) Failure(p *corev1.Pod) *scaling.Failure {
	h.note(p)
	if Terminating(p) {
		return nil
	}
	var repeated *scaling.Failure
	for c := range containers(p) {
		if f := atOnce(c); f != nil {
			return f
		}
		if repeated == nil {
			repeated = h.containers[c.spec.Name].repeated(c)
		}
	}
	return repeated
}

func (h *History) note(p *corev1.Pod) {
	if h.containers == nil {
		h.containers = make(map[string]*past)
	}
	for c := range containers(p) {
		w := h.containers[c.spec.Name]
		if w == nil {
			w = &past{}
			if !h.seen {
				w.restarts = c.status.RestartCount
			}
			h.containers[c.spec.Name] = w
		}
		w.restarts = min(w.restarts, c.status.RestartCount) // kubelet counts anew in another sandbox
		w.note(c.status)
	}
	h.seen = true
}

// note counts failed pulls. After each kubelet says why it failed, then that it waits.
func (w *past) note(s *corev1.ContainerStatus) {
	reason := ""
	if s.State.Waiting != nil {
		reason = s.State.Waiting.Reason
	}
	failed := pullProblem(reason) && reason != reasonPullBackOff
	wasFailed := pullProblem(w.last) && w.last != reasonPullBackOff
	if failed && !wasFailed || reason == reasonPullBackOff && w.pulls == 0 {
		w.pulls++
	}
	if s.State.Running != nil {
		w.pulls = 0
	}
	w.last = reason
}

func (w *past) repeated(c *container) *scaling.Failure {
	waiting := c.status.State.Waiting
	if waiting != nil && pullProblem(waiting.Reason) {
		if w.pulls < enoughPulls {
			return nil
		}
		return failure(scaling.ReasonImagePull, c, waiting.Reason, waiting.Message)
	}
	restarts := c.status.RestartCount - w.restarts
	if restarts < enoughRestarts || !c.ended() && (waiting == nil || waiting.Reason != reasonCrashLoop) {
		return nil
	}
	message := fmt.Sprintf("container %q was restarted %d times since the wake began", c.spec.Name, restarts)
	if t := lastEnd(c.status); t != nil {
		message += fmt.Sprintf(", and ended with exit code %d (%s)", t.ExitCode, t.Reason)
		if t.Message != "" {
			message += ": " + strings.TrimSpace(t.Message)
		}
	}
	return &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: message}
}

// atOnce returns the failure of a container that trying again cannot help.
func atOnce(c *container) *scaling.Failure {
	if w := c.status.State.Waiting; w != nil {
		switch w.Reason {
		case reasonInvalidImage, reasonNeverPull:
			return failure(scaling.ReasonImagePull, c, w.Reason, w.Message)
		case reasonCreateConfig, reasonCreate:
			if !passing(w.Message) {
				return failure(scaling.ReasonConfig, c, w.Reason, w.Message)
			}
		}
	}
	if c.status.State.Running != nil {
		return nil
	}
	return noCommand(c)
}

// noCommand returns the failure of a container whose command cannot be executed: kubelet tells it once while it starts
// the container, then as how the container ended.
func noCommand(c *container) *scaling.Failure {
	var reason, message string
	if w := c.status.State.Waiting; w != nil && w.Reason == reasonRun {
		reason, message = w.Reason, w.Message
	} else if t := lastEnd(c.status); t != nil && (t.Reason == reasonStartError || t.Reason == reasonContainerdRun) {
		reason, message = t.Reason, t.Message
	}
	if !strings.Contains(message, `exec: "`) { // runc's and crun's own words, of the command and nothing else
		return nil
	}
	if strings.Contains(message, "not found") || strings.Contains(message, "no such file") {
		return failure(scaling.ReasonNotFound, c, reason, message)
	}
	return failure(scaling.ReasonConfig, c, reason, message)
}

// passing recognizes a hiccup of kubelet or of its runtime behind a reason that else means a wrong configuration.
func passing(message string) bool {
	for _, sign := range []string{
		"failed to sync",     // the kubelet's own copy of a ConfigMap or a Secret has not come yet
		"is reserved for",    // the container's name, by an attempt that goes on
		"deadline exceeded",  // the runtime is slow
		"DeadlineExceeded",   //
		"code = Unavailable", // the runtime is being restarted
		"connection refused", //
	} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// pullProblem reports that an image could not be had for now.
func pullProblem(reason string) bool {
	switch reason {
	case reasonPull, reasonPullBackOff, reasonInspect, reasonNoRegistry, reasonBadSignature, reasonNeverPull:
		return true
	}
	return false
}

func lastEnd(s *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}

func failure(reason scaling.Reason, c *container, word, message string) *scaling.Failure {
	text := fmt.Sprintf("container %q: %s", c.spec.Name, word)
	if message = strings.TrimSpace(message); message != "" {
		text += ": " + message
	}
	return &scaling.Failure{Reason: reason, Message: text}
}
