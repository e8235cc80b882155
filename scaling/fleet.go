package scaling

import (
	"context"
	"time"
)

// Epoch names one fence, for ever: no two fences have the same.
type Epoch struct {
	Term   int64  `json:"term"`   // grows with every change of leader
	Leader string `json:"leader"` // the process that leads, not its pod: a container that restarts is another
	Seq    uint64 `json:"seq"`    // grows with every fence of that process
}

// Outcome is how a fence ended.
type Outcome uint8

// The outcomes of a fence.
const (
	OutcomeAborted Outcome = iota // nothing was written: the target is as it was
	OutcomeSlept                  // the target's scale is at its minimum: its endpoints are condemned
	OutcomeUnsure                 // as Slept, but the write was not answered, so it may not have been done, or not yet
)

// FenceReply is what a member answers to a leader that wants to put a target to sleep.
type FenceReply struct {
	// Held says that nobody uses the target here, and that from now on whoever comes for it waits until the leader says
	// how the fence ended.
	Held  bool
	Age   time.Duration // how long the last activity is past, where not Held; zero: it is in use, or not known here
	Known []string      // ids of the endpoints known here, where Held: they are condemned should the target sleep
}

// Held is a fence that is held for a leader and has no outcome yet.
type Held struct {
	Target Target
	Epoch  Epoch
}

// FenceRequest asks all other activators to hold what comes for a target.
type FenceRequest struct {
	Target  Target
	IdleFor time.Duration // whoever has used it within that time refuses
	// Done is called once, from any goroutine, and never from within Fence: with the ids of endpoints that the others know
	// if all of them hold, or with the reason why they do not. That wraps ErrBusy where one of them uses the target.
	Done func(known []string, err error)
}

// Fleet is the other activators of the same services. Where a [ScaleHandler] has none, it leads and is alone. No method but
// Sleep blocks, and none calls the ScaleHandler.
type Fleet interface {
	Fencer
	Sharer

	// Leads reports whether it is this process that puts targets to sleep.
	Leads() bool
	// Sleep has the leader put service's target to sleep, as [ScaleHandler.Sleep] does.
	Sleep(ctx context.Context, service Key) error
}

// Sharer is the part of a [Fleet] that has each know what the others see of a target.
type Sharer interface {
	// Activity is how the others use a target, all of them together. It is not known while one of them is silent, or has
	// not said yet.
	Activity(target Target) (a Activity, known bool)
	// ColdStart tells the others how long a cold start took that we have seen, from the first request to the first byte of its
	// answer.
	ColdStart(target Target, took time.Duration)
}

// Fencer is the part of a [Fleet] that puts up fences.
type Fencer interface {
	// Fence puts up the target's fence. The one before has been ended.
	Fence(r FenceRequest)
	// Lift ends the fence that Fence has put up or is putting up, whose Done need not be called any more. condemned is every
	// endpoint that must not be used any more; of a fence that was aborted, those that are gone all the same.
	Lift(target Target, outcome Outcome, condemned []string)
	// Revoke tells of a request that has come for a fenced target, so that its scale is not lowered if that can still be
	// prevented. The zero Epoch is for our own fence.
	Revoke(target Target, epoch Epoch)
	// Found tells all that another's fence has ended in a sleep, as the platform says: the leader that could say so is lost.
	Found(target Target, epoch Epoch, condemned []string)
}

// Reader is a Backend that can be asked how things are now, where what Watch tells lags.
type Reader interface {
	// Read asks for a service's target, and returns nothing older than the call.
	Read(ctx context.Context, service *Service) (Reading, error)
}

// Reading is what a [Reader] has found.
type Reading struct {
	Spec int32 // the recorded wish for replicas
	// Endpoints are the ids of all endpoints that exist and are not terminating, whether they can answer or not. They were
	// read after Spec.
	Endpoints []string
}
