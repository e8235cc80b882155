package trust

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	remember   = 10 * time.Second // how long an answer holds
	maxAnswers = 4096             // that are remembered, of each kind
	maxRunning = 16               // reviews that the API server is asked for at once
	maxWaiting = 256              // reviews, those that run included
	maxReview  = 5 * time.Second  // waiting for its turn included
)

var errTooMany = errors.New("too many callers wait to be reviewed")

// question is a hash of what is asked: no token is kept in memory for longer than its request.
type question [sha256.Size]byte

func questionOf(parts any) (q question, err error) {
	text, err := json.Marshal(parts)
	if err != nil {
		return q, err
	}
	return sha256.Sum256(text), nil
}

// reviews asks questions, and remembers the answers. Its fields are safe for concurrent use.
type reviews[Answer any] struct {
	// Who makes up tokens fills refused, and does not push out those that were found good.
	allowed, refused *cache.LRUExpireCache
	flights          singleflight.Group
	waiting          chan struct{} // holds an element for each flight
	running          chan struct{} // and one for each that the API server was asked for
}

func newReviews[Answer any]() *reviews[Answer] {
	return &reviews[Answer]{
		allowed: cache.NewLRUExpireCache(maxAnswers), refused: cache.NewLRUExpireCache(maxAnswers),
		waiting: make(chan struct{}, maxWaiting), running: make(chan struct{}, maxRunning),
	}
}

// ask returns the answer to q, which review finds out where it is not remembered. An error says that there is none.
func (r *reviews[Answer]) ask(ctx context.Context, q question, review func(context.Context) (Answer, bool, error)) (answer Answer, yes bool, err error) {
	if known, ok := r.allowed.Get(q); ok {
		answer, _ = known.(Answer)
		return answer, true, nil
	}
	if _, ok := r.refused.Get(q); ok {
		return answer, false, nil
	}
	// Whoever asked first may leave before the others have their answer.
	flight := r.flights.DoChan(string(q[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxReview)
		defer cancel()
		return r.fly(ctx, q, review)
	})
	select {
	case landed := <-flight:
		if landed.Err != nil {
			return answer, false, landed.Err
		}
		if found, ok := landed.Val.(Answer); ok {
			return found, true, nil
		}
		return answer, false, nil
	case <-ctx.Done():
		return answer, false, ctx.Err()
	}
}

// fly returns an Answer, or nil for a no.
func (r *reviews[Answer]) fly(ctx context.Context, q question, review func(context.Context) (Answer, bool, error)) (any, error) {
	select {
	case r.waiting <- struct{}{}:
		defer func() { <-r.waiting }()
	default:
		return nil, errTooMany
	}
	select {
	case r.running <- struct{}{}:
		defer func() { <-r.running }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a review: %w", ctx.Err())
	}
	answer, yes, err := review(ctx)
	switch {
	case err != nil:
		return nil, err
	case !yes:
		r.refused.Add(q, struct{}{}, remember)
		return nil, nil //nolint:nilnil // the answer is no
	}
	r.allowed.Add(q, answer, remember)
	return answer, nil
}
