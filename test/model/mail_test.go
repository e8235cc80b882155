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
	list []parcel
}

type parcel struct {
	*scaling.Endpoints
	target scaling.Target // of the service when it was sent
}

func (m *mail) post(snapshot *scaling.Endpoints) {
	m.mu.Lock()
	m.list = append(m.list, parcel{snapshot, m.platform.target(snapshot.Service)})
	m.mu.Unlock()
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// carry delivers until stop. Snapshots of the time when a service had another target are not delivered any more.
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
		for i, p := range list {
			newer := func(other parcel) bool { return other.Service == p.Service }
			skipped := m.platform.coalesce && slices.ContainsFunc(list[i+1:], newer)
			if !skipped && p.target == m.platform.target(p.Service) {
				m.platform.delivered(p.Endpoints)
				m.sink(p.Endpoints)
			}
		}
	}
}
