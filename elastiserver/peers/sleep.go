package peers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

const (
	sleepTimeout = 30 * time.Second // bounds what is done for a peer
	mostSleeps   = 64               // of one peer at once
)

// The words of an [Answer].
const (
	answerSlept   = "slept"
	answerBusy    = "busy"
	answerUnknown = "unknown"
	answerNobody  = "noLeader"
	answerFailed  = "failed"
)

// question is a Sleep that is to be answered.
type question struct {
	to     PeerID
	answer chan<- Answer // has room for one
}

// Sleep implements [scaling.Fleet].
func (f *Fleet) Sleep(ctx context.Context, service scaling.Key) error {
	answer := make(chan Answer, 1)
	f.mu.Lock()
	p := f.peers[f.leader]
	if p == nil {
		f.mu.Unlock()
		return scaling.ErrNoLeader
	}
	f.asked++
	id := f.asked
	f.questions[id] = question{to: p.id, answer: answer}
	err := p.link.Send(Message{Sleep: &Sleep{ID: id, Service: Key(service)}})
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.questions, id)
	}()
	if err != nil {
		return scaling.ErrNoLeader
	}
	select {
	case a := <-answer:
		return a.err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a Answer) err() error {
	switch a.Outcome {
	case answerSlept:
		return nil
	case answerBusy:
		return scaling.ErrBusy
	case answerUnknown:
		return scaling.ErrUnknownService
	case answerNobody:
		return scaling.ErrNoLeader
	}
	return fmt.Errorf("ask the leader: %s", a.Problem)
}

func (f *Fleet) answered(by PeerID, a *Answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q, ok := f.questions[a.ID]; ok && q.to == by {
		delete(f.questions, a.ID)
		q.answer <- *a
	}
}

// forgetQuestions answers those that a peer will not answer any more.
func (f *Fleet) forgetQuestions(to PeerID) {
	for id, q := range f.questions {
		if q.to == to {
			delete(f.questions, id)
			q.answer <- Answer{Outcome: answerNobody}
		}
	}
}

// sleepFor does what a peer has asked the leader for.
func (f *Fleet) sleepFor(p *peer, s *Sleep) {
	reply := func(a Answer) {
		a.ID = s.ID
		_ = p.link.Send(Message{Answer: &a})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leads() { // it would have to be forwarded again, and for ever
		reply(Answer{Outcome: answerNobody})
		return
	}
	if p.sleeps >= mostSleeps {
		reply(Answer{Outcome: answerFailed, Problem: "too many are asked for at once"})
		return
	}
	p.sleeps++
	if !f.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, sleepTimeout)
		defer cancel()
		a := answerTo(f.Scaler.Sleep(ctx, scaling.Key(s.Service)))
		f.mu.Lock()
		defer f.mu.Unlock()
		p.sleeps--
		reply(a)
	}) {
		p.sleeps--
		reply(Answer{Outcome: answerNobody})
	}
}

func answerTo(err error) Answer {
	switch {
	case err == nil:
		return Answer{Outcome: answerSlept}
	case errors.Is(err, scaling.ErrBusy):
		return Answer{Outcome: answerBusy}
	case errors.Is(err, scaling.ErrUnknownService):
		return Answer{Outcome: answerUnknown}
	case errors.Is(err, scaling.ErrNoLeader):
		return Answer{Outcome: answerNobody}
	}
	return Answer{Outcome: answerFailed, Problem: err.Error()}
}
