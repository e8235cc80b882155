package kube

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
)

// enough is how long something may take that is to happen. No test waits for it to pass.
const enough = 60 * time.Second

// sightings are the snapshots of a Watch.
type sightings struct {
	t testing.TB

	mu      sync.Mutex // guards the following
	of      map[scaling.Key][]sighting
	changed chan struct{} // closed with the next
}

type sighting struct {
	*scaling.Endpoints

	at time.Time
}

func (w *world) watch() *sightings {
	s := &sightings{t: w.t, of: make(map[scaling.Key][]sighting), changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var crew sync.WaitGroup
	crew.Go(func() { _ = w.backend.Watch(ctx, s.see) })
	w.t.Cleanup(func() { cancel(); crew.Wait() })
	return s
}

func (s *sightings) see(e *scaling.Endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[e.Service] = append(s.of[e.Service], sighting{e, time.Now()})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *sightings) history(key scaling.Key) []sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.of[key])
}

// await waits for a newest snapshot as wanted.
func (s *sightings) await(key scaling.Key, want string, is func(*scaling.Endpoints) bool) sighting {
	s.t.Helper()
	late := time.After(enough)
	for {
		s.mu.Lock()
		changed := s.changed
		var last sighting
		if all := s.of[key]; len(all) > 0 {
			last = all[len(all)-1]
		}
		s.mu.Unlock()
		if last.Endpoints != nil && is(last.Endpoints) {
			return last
		}
		select {
		case <-changed:
		case <-late:
			s.t.Fatalf("%s: waited for %s; last was %+v", key, want, last.Endpoints)
		}
	}
}

func (s *sightings) awaitReady(key scaling.Key, count int) sighting {
	s.t.Helper()
	return s.await(key, "endpoints to be ready", func(e *scaling.Endpoints) bool { return len(e.Ready) == count })
}

// never fails the test if any snapshot so far was such.
func (s *sightings) never(key scaling.Key, what string, is func(*scaling.Endpoints) bool) {
	s.t.Helper()
	for _, e := range s.history(key) {
		if is(e.Endpoints) {
			s.t.Errorf("%s: %s: %+v", key, what, e.Endpoints)
			return
		}
	}
}

func (w *world) scale(service *scaling.Service, replicas int32) {
	w.t.Helper()
	if err := w.backend.Scale(w.t.Context(), service, replicas); err != nil {
		w.t.Errorf("scale %s to %d: %v", service.Key, replicas, err)
	}
}

func (w *world) setWaiting(count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = count
}

// awaitSliceReady waits until a slice of a Service calls an endpoint ready.
func (w *world) awaitSliceReady(service string) {
	w.t.Helper()
	w.await("the slice to say ready", func(ctx context.Context) bool {
		list, err := w.kube.Kube.DiscoveryV1().EndpointSlices(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
		return err == nil && slices.ContainsFunc(list.Items, func(s discoveryv1.EndpointSlice) bool {
			return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready != nil && *e.Conditions.Ready })
		})
	})
}

// awaitDeaf waits until nobody listens at an address.
func (w *world) awaitDeaf(address string) {
	w.t.Helper()
	w.await("nobody to listen", func(ctx context.Context) bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// await polls for what no event of ours tells.
func (w *world) await(what string, is func(context.Context) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), enough)
	defer cancel()
	for !is(ctx) {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pods returns the pods of an app.
func (w *world) pods(ctx context.Context, app string) []corev1.Pod {
	list, err := w.kube.Kube.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil
	}
	return list.Items
}

// write makes a slice as a tenant might.
func (w *world) write(service string, endpoints ...discoveryv1.Endpoint) {
	w.t.Helper()
	name, port := "http", int32(appPort)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: service + "-", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	if _, err := w.kube.Kube.DiscoveryV1().EndpointSlices(w.namespace).Create(w.t.Context(), s, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// elapse lets time pass in which nothing is to happen: there is no event to wait for.
func elapse(d time.Duration) { <-time.After(d) }
