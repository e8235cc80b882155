package scaling

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// notices hands each notice to all who subscribed. The zero value is ready to use.
type notices struct {
	mu   sync.Mutex // serializes writers of subs
	next int
	subs map[int]func(Notice)
	list atomic.Pointer[[]func(Notice)]
}

func (n *notices) subscribe(f func(Notice)) (cancel func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.next
	n.next++
	if n.subs == nil {
		n.subs = make(map[int]func(Notice))
	}
	n.subs[id] = f
	n.storeLocked()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subs, id)
		n.storeLocked()
	}
}

func (n *notices) storeLocked() {
	list := slices.Collect(maps.Values(n.subs))
	n.list.Store(&list)
}

func (n *notices) send(notice Notice) {
	if list := n.list.Load(); list != nil {
		for _, f := range *list {
			f(notice)
		}
	}
}
