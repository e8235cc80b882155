package peers

import (
	"context"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// Scaler is what the others want of this process: a [scaling.ScaleHandler], whose methods are documented there.
type Scaler interface {
	Holder
	Condemner
	Sleeper
	Observer
}

var _ Scaler = (*scaling.ScaleHandler)(nil)

// Holder holds what comes for a target while another activator puts it to sleep.
type Holder interface {
	Hold(t scaling.Target, e scaling.Epoch, idleFor time.Duration, reply func(scaling.FenceReply))
	Unhold(t scaling.Target, e scaling.Epoch, o scaling.Outcome, condemned []string)
	Holds() []scaling.Held
}

// Condemner knows which endpoints must not be used.
type Condemner interface {
	Condemned() map[scaling.Target][]string
	Condemn(t scaling.Target, ids []string)
	CondemnAbsent(t scaling.Target, e scaling.Epoch, living []string)
}

// Sleeper puts targets to sleep.
type Sleeper interface {
	Lead()
	Sleep(ctx context.Context, service scaling.Key) error
}

// Observer knows how targets are and how they are used, and hears what others see.
type Observer interface {
	Activities(f func(scaling.Target, scaling.Activity))
	ColdStart(t scaling.Target, took time.Duration)
	Read(ctx context.Context, t scaling.Target) (scaling.Reading, error)
	Minimum(t scaling.Target) (replicas int32, known bool)
}
