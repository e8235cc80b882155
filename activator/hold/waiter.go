package hold

import (
	"time"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/scaling"
)

// A Grantee is told how a wait ended: exactly one of its methods is called, exactly once, outside all locks. Neither may
// block. After [Gate.Leave] returned true neither is called.
type Grantee interface {
	Granted(balance.Lease)
	Refused(Refusal)
}

// Waiter is one request's place in a queue. An engine embeds it in the request's own state, sets the exported fields
// once, and passes it to [Gate.Acquire]; the rest belongs to the Gate.
type Waiter struct {
	Grantee Grantee
	// Fresh is set for a request that must not be sent twice: it gets a new connection or one used a moment ago.
	Fresh bool
	// Cost is the memory, in bytes, that the request keeps while it is held.
	Cost int64

	next, prev *Waiter
	seq        uint64 // order of arrival at the gate
	queued     bool
	lease      balance.Lease // on its way from the gate to Granted
}

// Outcome is what [Gate.Acquire] did with a request.
type Outcome uint8

// The outcomes.
const (
	Leased  Outcome = iota // the lease is returned; the request goes on at once
	Held                   // it waits; its Grantee will be told
	Refused                // the refusal is returned
)

// Cause is why a request was refused, from a closed set.
type Cause uint8

// The causes.
const (
	CauseServiceBound Cause = iota // too many requests of this service are held
	CauseProcessBound              // too many requests, or bytes, are held in this process
	CauseFailed                    // the service cannot be woken; the Refusal has the Failure
	CauseUnreachable               // every endpoint has refused connections for long
	CauseRemoved                   // the service was removed from the configuration
	CauseDraining                  // this process is ending and cannot wait any longer
)

// Refusal is why a request will not be carried, and when to come again.
type Refusal struct {
	Cause   Cause
	Failure *scaling.Failure // set for CauseFailed
	// RetryAfter is when it makes sense to ask again, from what this service's cold starts took; at least a second.
	RetryAfter time.Duration
}

// queue is a FIFO of waiters, linked through them. The zero value is empty.
type queue struct {
	front, back *Waiter
	len         int
}

func (q *queue) push(w *Waiter) { q.insert(w, q.back) }

// pushBySeq puts w back where its arrival belongs: near the front, behind those before it that came back already, or
// near the back, if all who waited were granted and came back. It looks from both ends at once.
func (q *queue) pushBySeq(w *Waiter) {
	before, after := q.back, q.front
	for after != nil && after.seq < w.seq && before.seq > w.seq {
		before, after = before.prev, after.next
	}
	if after == nil || before.seq < w.seq {
		q.insert(w, before)
	} else {
		q.insert(w, after.prev)
	}
}

// insert puts w behind prev, or at the front if that is nil.
func (q *queue) insert(w, prev *Waiter) {
	next := q.front
	if prev != nil {
		next = prev.next
	}
	w.prev, w.next = prev, next
	if prev != nil {
		prev.next = w
	} else {
		q.front = w
	}
	if next != nil {
		next.prev = w
	} else {
		q.back = w
	}
	q.len++
	w.queued = true
}

func (q *queue) remove(w *Waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.front = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.back = w.prev
	}
	w.prev, w.next = nil, nil
	q.len--
	w.queued = false
}
