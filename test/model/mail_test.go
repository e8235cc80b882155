package model

import (
	"slices"
	"sync"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// mail is the snapshots on their way from the Fake to a watch.
type mail struct {
	platform *platform
	sink     func(*scaling.Endpoints)
	arrived  chan struct{} // capacity 1: there is something in list
	stop     chan struct{} // closed when the watch ends

	mu   sync.Mutex // guards the following
	list []*scaling.Endpoints
}

func (m *mail) post(snapshot *scaling.Endpoints) {
	m.mu.Lock()
	m.list = append(m.list, snapshot)
	m.mu.Unlock()
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// carry delivers until stop, snapshots of the time when a service had another target too: those are to be told apart.
func (m *mail) carry() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.arrived:
		}
		select {
		case <-m.stop:
			return
		case <-time.After(m.platform.lag):
		}
		m.mu.Lock()
		list := m.list
		m.list = nil
		m.mu.Unlock()
		for i, snapshot := range list {
			newer := func(other *scaling.Endpoints) bool { return other.Service == snapshot.Service }
			if m.platform.coalesce && slices.ContainsFunc(list[i+1:], newer) {
				continue
			}
			if snapshot.Target == m.platform.target(snapshot.Service) {
				m.platform.delivered(snapshot)
			}
			m.sink(snapshot)
		}
	}
}
