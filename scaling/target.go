package scaling

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/metrics"
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
	t.setAlarm(now)
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
		outcome := OutcomeUnsure
		if asFailure(e.err) != nil {
			outcome = OutcomeAborted
		}
		t.handler.fleet.Lift(t.id, outcome, append(e.condemned, t.life.fence.doomed...))
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
	t.fence.Store(nil)
}

// carryOut does what the lifecycle wants done. What is known at once of what came of it is the next event. reply is for the
// leader that asks us, if one does.
func (t *target) carryOut(now time.Time, a action, reply func(FenceReply)) (next event, follows bool) {
	h := t.handler
	switch a.kind {
	case actWrite:
		if t.life.writing == writingSleep {
			t.callOff = h.lower(t, t.merged, a.replicas)
			break
		}
		// Backends lower a scale to the service's minimum only, so what a wake gives them has none.
		up := *t.merged
		up.Replicas.Min = -1
		h.raise(t, &up, a.replicas)
	case actFence:
		idle := true
		for _, s := range t.known() {
			idle = h.gates.Fence(s.Key) && idle
		}
		return event{kind: evFenced, idle: idle}, true
	case actLift:
		for _, s := range t.known() {
			h.gates.Lift(s.Key)
		}
	case actReply:
		reply(a.reply)
	case actAsk:
		return t.ask(a)
	case actEnd:
		if h.fleet != nil {
			h.fleet.Lift(t.id, a.outcome, a.condemned)
		}
	case actRevoke:
		if t.callOff != nil { // it is our own
			t.callOff(errCalledOff)
		}
		if h.fleet != nil {
			h.fleet.Revoke(t.id, a.epoch)
		}
	case actFound:
		if h.fleet != nil {
			h.fleet.Found(t.id, a.epoch, a.condemned)
		}
	case actRecall:
		h.read(t, func(r *Reading, err error) event {
			return event{kind: evRecalled, epoch: a.epoch, reading: r, err: err}
		})
	case actConfirm:
		if _, reads := h.backend.(Reader); !reads {
			return event{kind: evConfirmed}, true
		}
		h.read(t, func(r *Reading, err error) event { return event{kind: evConfirmed, reading: r, err: err} })
	case actPublish:
		for _, s := range t.known() {
			v := t.life.view(s.Key)
			if !s.Hold.FailFast {
				v.Failure = nil
			}
			h.gates.Publish(s.Key, v)
		}
	case actState:
		t.logState(a)
		t.notify(Notice{Time: now, Kind: NoticeState, From: a.from, To: a.to, Failure: t.life.failure})
	case actLost:
		t.notify(Notice{Time: now, Kind: NoticeWakeLost, From: t.life.state, To: t.life.state})
	case actColdStart:
		t.countColdStart(a.cold)
	}
	return event{}, false
}

// ask asks the other activators to hold what comes for the target, if there are any.
func (t *target) ask(a action) (next event, follows bool) {
	if t.handler.fleet == nil {
		return event{kind: evAsked, fence: a.fence}, true
	}
	t.handler.fleet.Fence(FenceRequest{Target: t.id, IdleFor: a.idleFor, Done: func(known []string, err error) {
		t.post(mail{event: event{kind: evAsked, fence: a.fence, condemned: known, err: err}})
	}})
	return event{}, false
}

func (t *target) notify(n Notice) {
	n.Target, n.Services = t.id, t.life.services
	t.handler.notices.send(n)
}

func (t *target) logState(a action) {
	log := t.handler.logger.With(zap.Stringer("target", t.id), zap.Stringer("from", a.from), zap.Int32("spec", t.life.spec))
	switch a.to {
	case StateAsleep:
		log.Info("asleep")
	case StateWaking:
		if t.life.cold == nil { // nobody was waiting for it: it was found so
			log.Info("waiting for endpoints", zap.Int("held", t.activity().Held))
			break
		}
		log.Info("waking", zap.Int32("replicas", t.life.size), zap.Int("held", t.activity().Held))
	case StateAwake:
		log.Info("awake", zap.Int("held", t.activity().Held))
	case StateDraining:
		log.Debug("going to sleep")
	case StateFailed:
		log.Warn("cannot start", zap.String("reason", string(t.life.failure.Reason)), zap.String("message", t.life.failure.Message))
	}
}

func (t *target) countColdStart(c *coldStart) {
	key := t.merged.Key
	w := c.record()
	phases := metrics.Phases{Scale: w.Scale, Schedule: w.Schedule, Start: w.Start, Ready: w.Ready}
	if !c.ready.IsZero() && c.flushed.After(c.ready) {
		phases.Flush = c.flushed.Sub(c.ready)
	}
	outcome := metrics.ColdStartReady
	switch c.outcome {
	case coldFailed:
		outcome = metrics.ColdStartFailed
	case coldAbandoned:
		outcome = metrics.ColdStartAbandoned
	case coldReady:
		t.handler.logger.Info("cold start", zap.Stringer("target", t.id), zap.Duration("whole", phases.Whole()),
			zap.Duration("scale", phases.Scale), zap.Duration("schedule", phases.Schedule),
			zap.Duration("start", phases.Start), zap.Duration("ready", phases.Ready), zap.Duration("flush", phases.Flush))
	}
	t.handler.metrics.Service(key.Namespace, key.Name).ColdStart(outcome, phases)
}

// logUnwritten tells of a scale that was not written. That a request came in time to keep a target awake is nothing to worry
// about, and a sleep that came to nothing is tried again.
func (t *target) logUnwritten(err error, sleep bool) {
	log := t.handler.logger.With(zap.Stringer("target", t.id), zap.Error(err))
	switch {
	case errors.Is(err, ErrBusy):
		log.Debug("kept awake")
	case sleep && asFailure(err) != nil:
		log.Warn("could not be put to sleep, trying again when it has been idle as long again")
	default:
		log.Error("a scale could not be written")
	}
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

// setAlarm keeps the timer at the lifecycle's next deadline, or stopped where it has none.
func (t *target) setAlarm(now time.Time) {
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
		t.timer = time.AfterFunc(alarm.Sub(now), func() { t.post(mail{event: event{kind: evTick}}) })
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

// merge returns what services ask of their target together: the largest of each wish.
func merge(services []*Service) (policy, *Service) {
	first := services[0]
	p := policy{max: first.Replicas.Max, concurrency: first.Upstream.MaxConcurrency}
	never := false
	for _, s := range services {
		p.min = max(p.min, s.Replicas.Min)
		p.wake = max(p.wake, s.Replicas.Wake)
		p.max = max(p.max, s.Replicas.Max)
		p.idleAfter = max(p.idleAfter, s.Idle.After)
		p.initial = p.initial || s.Idle.Initial
		never = never || s.Idle.After <= 0
		p.prior = max(p.prior, s.History.Wake)
		p.carried = p.carried || s.History.Carried
		if c := s.Upstream.MaxConcurrency; c > 0 && (p.concurrency == 0 || c < p.concurrency) {
			p.concurrency = c
		}
	}
	for _, s := range services {
		if s.Replicas.Max == 0 {
			p.max = 0
		}
	}
	if never {
		p.idleAfter = 0
	}
	if len(services) == 1 {
		return p, first
	}
	merged := *first
	merged.Replicas = Replicas{Min: p.min, Wake: p.wake, Max: p.max}
	return p, &merged
}
