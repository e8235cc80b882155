package main

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
	"github.com/dormouse-dev/dormouse/elastiserver/peers/stream"
	"github.com/dormouse-dev/dormouse/scaling/kube/election"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
)

// fleet is what this activator has to do with the others of its cluster.
type fleet struct {
	*peers.Fleet
	mesh     *stream.Mesh // nil where there is no control port for them
	capacity *peers.Capacity
	members  *members.Members
	pod      string      // our own's UID
	port     uint16      // of everybody's control port
	open     atomic.Bool // requests pass
	lease    election.Options
}

// join makes this activator one of many. Outside of a pod there is nobody to join: it leads, and is alone.
func (r *replica) join() {
	o := r.options
	if o.podName == "" {
		return
	}
	incarnation := rand.Text()
	id := peers.NewPeerID(o.podUID, incarnation)
	logger := r.logger.Named("fleet")
	f := &fleet{members: r.members, pod: o.podUID, port: r.controlPort()}
	f.capacity = peers.NewCapacity(id, r.gates, func(to peers.PeerID, m peers.Message) error { return f.Send(to, m) })
	f.Fleet = peers.New(peers.Options{
		ID: id, Logger: logger, Scaler: r.scaler, Membership: f, Metrics: r.counters,
		Open: func() {
			r.gates.Open()
			f.open.Store(true)
		},
		IdleAfter: r.scaler.IdleAfter, Capacity: f.capacity,
	})
	r.gates.Short, r.gates.Lent, r.gates.Repaid = f.capacity.Short, f.capacity.Lent, f.capacity.Repaid
	v, _, _ := build()
	if r.door != nil { // else there are no streams, so nothing is put to sleep unless this is the only activator
		f.mesh = stream.New(stream.Options{
			ID: o.podUID, Name: o.podName, Incarnation: incarnation, Version: v, Logger: logger.Named("stream"),
			Handler: stream.Messages(f.Fleet), Authorizer: r.door, TLS: r.door.clientTLS, Token: r.door.token,
			Refused: r.door.peerRefused,
		})
		r.door.streams = f.mesh
	}
	f.lease = election.Options{
		Client: r.cluster.Kube.CoordinationV1(), Namespace: o.podNamespace, Name: o.lease, Identity: o.podName + "_" + incarnation, Logger: logger.Named("election"),
		Now:     peers.BootClock,
		Lead:    func(_ context.Context, term int64) { f.Leader(o.podName, term, true) },
		Lost:    func() { f.Leader("", 0, false) },
		Release: f.Resign,
	}
	f.lease.Floor = f.Term
	f.lease.Leader = func(identity string, term int64) {
		if identity != f.lease.Identity {
			f.Leader(identity, term, false)
		}
	}
	r.members.Subscribe(f.meet)
	r.gates.Shut() // until it is known what must not be used
	r.scaler.Join(f)
	r.fleet = f
}

// Members implements [peers.Membership].
func (f *fleet) Members(ctx context.Context) ([]peers.Member, error) {
	live, err := f.members.Live(ctx)
	if err != nil {
		return nil, err
	}
	return whoMayRun(live), nil
}

// parts are what runs for as long as the activator does. It stands for election only until draining is closed.
func (f *fleet) parts(draining <-chan struct{}) []part {
	if f == nil {
		return nil
	}
	parts := []part{
		{"fleet", f.Run},
		{"capacity", func(ctx context.Context) error {
			f.capacity.Run(ctx)
			return nil
		}},
		{"election", func(ctx context.Context) error {
			standing, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-draining:
					cancel()
				case <-standing.Done():
				}
			}()
			if err := election.Run(standing, f.lease); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}},
	}
	if f.mesh != nil {
		parts = append(parts, part{"streams", f.mesh.Run})
	}
	return parts
}

// serves tells whether requests are to be sent here. While they do not pass yet, that is so only where nobody else serves.
func (f *fleet) serves() bool {
	if f == nil || f.open.Load() {
		return true
	}
	return !slices.ContainsFunc(f.members.All(), func(m members.Member) bool {
		return string(m.UID) != f.pod && m.Ready && !m.Terminating
	})
}

// meet tells who the others are after each change.
func (f *fleet) meet() {
	all := f.members.All()
	f.Known(whoMayRun(all))
	if f.mesh == nil {
		return
	}
	dialled := make([]stream.Member, 0, len(all))
	for _, m := range all {
		other := stream.Member{ID: string(m.UID), Name: m.Name}
		for _, a := range m.Addresses {
			other.Addresses = append(other.Addresses, netip.AddrPortFrom(a, f.port))
		}
		dialled = append(dialled, other)
	}
	f.mesh.Set(dialled)
}

// whoMayRun leaves out pods without a node: they run nothing, and when they do they ask before they let a request pass.
func whoMayRun(all []members.Member) []peers.Member {
	list := make([]peers.Member, 0, len(all))
	for _, m := range all {
		if m.Scheduled {
			list = append(list, peers.Member{ID: string(m.UID), Name: m.Name, Running: m.Running})
		}
	}
	return list
}

// controlPort is where all activators listen for each other: the same everywhere.
func (r *replica) controlPort() uint16 {
	if r.sockets.control == nil {
		return 0
	}
	if a, ok := r.sockets.control.Addr().(*net.TCPAddr); ok {
		return a.AddrPort().Port()
	}
	return 0
}
