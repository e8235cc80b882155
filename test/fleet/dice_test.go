package fleet

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// dice is chance. Everybody who throws has dice of his own, made from the schedule's seed and his name, so that what he
// throws does not depend on how Go's scheduler orders him among others.
type dice struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func newDice(seed uint64, name string) *dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return &dice{rng: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < p
}

// below returns a number from 0 to n-1.
func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// upTo returns a time shorter than most, and at least a nanosecond: nothing takes no time.
func (d *dice) upTo(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return 1 + time.Duration(d.rng.Int64N(max(int64(most), 1)))
}

// between returns a time from least to most.
func (d *dice) between(least, most time.Duration) time.Duration { return least + d.upTo(most-least) }

// one returns one of several.
func one[T any](d *dice, of ...T) T { return of[d.below(len(of))] }
