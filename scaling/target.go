package scaling

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is one lifecycle and its mailbox. It has no goroutine: post works the mailbox off unless somebody else does.
type target struct {
	handler *ScaleHandler
	id      Target
	status  atomic.Pointer[status]
	fence   atomic.Pointer[fenceStatus]

	mu    sync.Mutex // guards the following
	inbox []mail
	busy  bool // somebody works the inbox off

	// The following belong to whoever works the inbox off; services may be read by anybody.
	closed   bool
	services atomic.Pointer[[]*Service]
	life     lifecycle
	merged   *Service // the first service, with the replicas that all services together ask for
	timer    *time.Timer
	alarm    time.Time
	asking   []asker                 // who waits for a wake to be recorded
	callOff  context.CancelCauseFunc // prevents the sleep that is being written, while it is not sent; or nil
	sleeping []chan<- answer         // who waits for a sleep to be recorded
}

// fenceStatus is what others may know of a target's fence: immutable.
type fenceStatus struct {
	sentences uint64 // that the following tell of
	held      *Epoch
	condemned []string
}

type asker struct {
	done   chan<- answer
	result WakeResult
}

// mail is an event, and who wants to know what came of it.
type mail struct {
	event    event
	services []*Service       // for evConfigured
	last     bool             // there is no event: the target ends
	done     chan<- answer    // has room for one; or nil
	reply    func(FenceReply) // for evHold
}

type answer struct {
	result WakeResult
	err    error
}

// post hands the target its mail, in order, and works off what is there. It does not wait for anything but other mail of
// the same target.
func (t *target) post(mails ...mail) {
	t.mu.Lock()
	t.inbox = append(t.inbox, mails...)
	if t.busy {
		t.mu.Unlock()
		return
	}
	t.busy = true
	for len(t.inbox) > 0 {
		inbox := t.inbox
		t.inbox = nil
		t.mu.Unlock()
		for _, m := range inbox {
			t.handle(m)
		}
		t.mu.Lock()
	}
	t.busy = false
	t.mu.Unlock()
}

// close ends the target: it takes no mail any more, and sets no alarm.
func (t *target) close() { t.post(mail{last: true}) }

func (t *target) handle(m mail) {
	switch {
	case t.closed:
		t.refuse(m)
		return
	case m.last:
		t.end()
		return
	}
	now := time.Now()
	e := m.event
	wasWriting := t.life.writing
	soonest := time.Duration(0)
	if e.kind == evTick {
		t.alarm, soonest = time.Time{}, tickAgain // it has gone off; whatever has not come of it does so by the next
	}
	if e.kind == evConfigured {
		t.exchange(m.services)
		e.policy, t.merged = merge(m.services)
		e.services = keys(m.services)
	}
	e.activity = t.activity()
	e.fleet = t.others(e.kind)
	actions, outcome := t.life.step(now, e)
	if e.kind == evWrote && t.callOff != nil {
		t.callOff(nil)
		t.callOff = nil
	}
	if e.kind == evWrote && e.err != nil {
		t.logUnwritten(e.err, wasWriting == writingSleep)
	}
	news := t.publishStatus(now) // who is told of it below may look
	var next []event
	for _, a := range actions {
		if e, follows := t.carryOut(now, a, m.reply); follows {
			next = append(next, e)
		}
	}
	if news {
		t.notify(Notice{Time: now, Kind: NoticeStatus, From: t.life.state, To: t.life.state})
	}
	t.answer(m, outcome, wasWriting)
	t.setAlarm(now, soonest)
	for _, e := range next {
		t.handle(mail{event: e, reply: m.reply})
	}
}

// others is what is known of the other activators.
func (t *target) others(kind eventKind) fleetView {
	fleet := t.handler.fleet
	if fleet == nil {
		return fleetView{}
	}
	v := fleetView{exists: true}
	if kind == evTick {
		var known bool
		v.activity, known = fleet.Activity(t.id)
		v.follows, v.unknown = !fleet.Leads(), !known
	}
	return v
}

// refuse answers mail that came too late. A sleep whose write was under way may have been written.
func (t *target) refuse(m mail) {
	m.answer(answer{err: ErrStopped})
	if m.reply != nil {
		m.reply(FenceReply{})
	}
	if e := m.event; e.kind == evWrote && t.life.ours().asking && t.handler.fleet != nil {
		t.life.fence.asking = false
		outcome, condemned := OutcomeUnsure, slices.Concat(e.condemned, t.life.fence.doomed)
		if asFailure(e.err) != nil {
			outcome, condemned = OutcomeAborted, e.condemned
		}
		t.handler.fleet.Lift(t.id, outcome, condemned)
	}
}

// exchange takes services in place of those before. The fence does not go with a service that leaves, and one that comes is
// fenced.
func (t *target) exchange(services []*Service) {
	before := t.known()
	t.services.Store(&services)
	if t.life.state != StateDraining {
		return
	}
	for _, s := range before {
		if !slices.ContainsFunc(services, func(kept *Service) bool { return kept.Key == s.Key }) {
			t.handler.gates.Lift(s.Key)
		}
	}
	for _, s := range services {
		if !slices.ContainsFunc(before, func(had *Service) bool { return had.Key == s.Key }) {
			t.handler.gates.Fence(s.Key)
		}
	}
}

// end gives up what is under way.
func (t *target) end() {
	t.closed = true
	t.exchange(nil)
	if t.timer != nil {
		t.timer.Stop()
	}
	for _, a := range t.asking {
		mail{done: a.done}.answer(answer{err: ErrStopped})
	}
	for _, done := range t.sleeping {
		mail{done: done}.answer(answer{err: ErrStopped})
	}
	t.asking, t.sleeping = nil, nil
	if fleet := t.handler.fleet; fleet != nil && t.life.ours().asking && t.life.writing == writingNone {
		t.life.fence.asking = false
		fleet.Lift(t.id, OutcomeAborted, nil)
	}
	if fleet := t.handler.fleet; fleet != nil && t.life.held != nil {
		fleet.Revoke(t.id, t.life.held.epoch) // it may return, and would not hold
	}
	t.fence.Store(nil)
}

// answer tells those who asked what came of it, now or when the write under way has ended.
func (t *target) answer(m mail, outcome wakeOutcome, wasWriting writing) {
	writingWake := t.life.writing == writingWake || t.life.wakeAfter
	draining := t.life.state == StateDraining
	if kind := m.event.kind; kind == evWake || kind == evPin {
		if outcome != wakeUnneeded && writingWake {
			t.asking = append(t.asking, asker{m.done, WakeResult(outcome)})
		} else {
			m.answer(answer{result: WakeResult(outcome)})
		}
	} else if kind == evSleep {
		t.sleeping = append(t.sleeping, m.done)
	}
	if !writingWake {
		err := m.event.err
		if wasWriting == writingSleep {
			err = nil // the sleep that they came upon was refused, so they have what they want
		}
		for _, a := range t.asking {
			mail{done: a.done}.answer(answer{result: a.result, err: err})
		}
		t.asking = nil
	}
	if !draining {
		for _, done := range t.sleeping {
			mail{done: done}.answer(answer{err: t.sleepError(m.event)})
		}
		t.sleeping = nil
	}
}

// sleepError is what became of a wish to sleep when last was the event that ended it.
func (t *target) sleepError(last event) error {
	switch {
	case last.kind == evWrote, last.kind == evAsked && last.err != nil:
		return last.err
	case t.life.state == StateAsleep, t.life.spec == t.life.policy.min:
		return nil
	}
	return ErrBusy
}

func (m mail) answer(a answer) {
	if m.done != nil {
		m.done <- a
	}
}

// tickAgain is how soon after a tick the next one comes at the earliest: by a wall clock that was set back it was none.
const tickAgain = 10 * time.Millisecond

// setAlarm keeps the timer at the lifecycle's next deadline, or stopped where it has none. It goes off no sooner than given.
func (t *target) setAlarm(now time.Time, soonest time.Duration) {
	alarm := t.life.alarm()
	if alarm.Equal(t.alarm) {
		return
	}
	t.alarm = alarm
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if !alarm.IsZero() {
		t.timer = time.AfterFunc(max(soonest, alarm.Sub(now)), func() { t.post(mail{event: event{kind: evTick}}) })
	}
}

func (t *target) known() []*Service {
	if s := t.services.Load(); s != nil {
		return *s
	}
	return nil
}

func keys(services []*Service) []Key {
	ks := make([]Key, len(services))
	for i, s := range services {
		ks[i] = s.Key
	}
	return ks
}

// activity is the use of all services of the target together.
func (t *target) activity() (sum Activity) {
	for _, s := range t.known() {
		a := t.handler.gates.Activity(s.Key)
		sum.Held += a.Held
		sum.InFlight += a.InFlight
		sum.Carried = sum.Carried || a.Carried
		sum.Last = latest(sum.Last, a.Last)
	}
	return sum
}
