package hold

import "github.com/dormouse-dev/dormouse/activator/balance"

// aftermath is what a change under the lock leaves to be done outside it.
type aftermath struct {
	granted, refused queue // linked through the waiters, which are in no other queue any more
	refusal          Refusal
	closing          []balance.Conn
	wake             bool // a request waits, and there is no endpoint
	short            bool // what others are asked for has changed
	loans            []loan
}

func (a *aftermath) grant(w *Waiter, l balance.Lease) {
	w.lease = l
	a.granted.push(w)
	w.queued = false
}

func (a *aftermath) refuse(w *Waiter) {
	a.refused.push(w)
	w.queued = false
}

// run tells the waiters, oldest first. A waiter belongs to its engine again as soon as it is told.
func (a *aftermath) run(g *Gate) {
	for w := a.granted.front; w != nil; {
		next, l := w.next, w.lease
		w.next, w.prev, w.lease = nil, nil, balance.Lease{}
		w.Grantee.Granted(l)
		w = next
	}
	for w := a.refused.front; w != nil; {
		next := w.next
		w.next, w.prev = nil, nil
		w.Grantee.Refused(a.refusal)
		w = next
	}
	closeAll(a.closing)
	if a.wake {
		g.gates.notify(g.key)
	}
	for _, l := range a.loans {
		l.tell(g)
	}
	if a.short {
		g.gates.short(g.key)
	}
}

func closeAll(conns []balance.Conn) {
	for _, c := range conns {
		_ = c.Close() // an idle connection; nobody is left to be told
	}
}
