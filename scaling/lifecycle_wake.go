package scaling

import "time"

// wakeUp answers a wish to have the target awake.
func (l *lifecycle) wakeUp(now time.Time, a Activity) wakeOutcome {
	switch {
	case l.held != nil:
		if !l.wakeAfter {
			l.begin(now, a)
			l.wakeAfter = true
			l.do(action{kind: actRevoke, epoch: l.held.epoch})
		}
		return wakeJoined
	case l.state == StateDraining && l.writing != writingSleep: // decided, but nothing is written yet
		l.abortSleep(now)
		return wakeJoined
	case l.writing == writingSleep:
		if l.wakeAfter {
			return wakeJoined
		}
		l.begin(now, a)
		l.wakeAfter = true
		l.do(action{kind: actRevoke}) // the write may not have been sent yet
		return wakeStarted
	case l.writing == writingWake:
		return wakeJoined
	case l.state == StateFailed && now.Before(l.retryAt) && a.Held > 0: // an operator's wish is not put off
		return wakeUnneeded
	}
	size := l.wakeSize(a.Held)
	switch {
	case l.state == StateAwake && l.spec != 0:
		return wakeUnneeded
	case l.state == StateWaking && l.spec >= size:
		return wakeUnneeded
	case l.state == StateAsleep && l.spec >= size: // its minimum is all that a wake would ask for
		l.become(StateWaking)
		l.settle(now)
		l.publish()
		return wakeUnneeded
	}
	l.begin(now, a)
	l.writeWake(size)
	return wakeStarted
}

// wakeSize is how many replicas a wake asks for.
func (l *lifecycle) wakeSize(waiting int) int32 {
	size := max(l.policy.wake, l.policy.min, 1)
	if l.policy.wake == 0 {
		size = max(size, l.prior)
	}
	if l.policy.concurrency > 0 && l.policy.max > 0 {
		// In int64: the number waiting is bounded by memory only.
		needed := (int64(waiting) + int64(l.policy.concurrency) - 1) / int64(l.policy.concurrency)
		size = max(size, int32(min(needed, int64(l.policy.max))))
	}
	if l.policy.max > 0 {
		size = min(size, l.policy.max)
	}
	return size
}

// begin opens the record of a cold start, if it is one.
func (l *lifecycle) begin(now time.Time, a Activity) {
	if l.cold == nil && !l.live() {
		l.cold = &coldStart{first: now}
	}
	// What we woke for a request of ours was not serving anybody else before.
	l.carried = l.carried || a.Held > 0
}

// writeWake asks for size replicas, or asserts what the target has been given beyond that.
func (l *lifecycle) writeWake(size int32) {
	size = max(size, l.spec)
	l.size = size
	l.writing = writingWake
	l.sleptAt = time.Time{}
	l.clear = false
	l.retryAt = time.Time{}
	l.become(StateWaking)
	l.do(action{kind: actWrite, replicas: size})
}
