package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/pod"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// writeTimeout bounds what is written of one resource at a time, so that an API server that hangs keeps no worker for
// good.
const writeTimeout = 15 * time.Second

// errLater is an error that the next look, or the one after, is expected not to meet: what was looked at had changed, or
// there is nothing to do but to wait.
var errLater = errors.New("to be looked at again")

// attempt looks at a resource, and sees to it that it is looked at again if that failed.
func (m *Mirror) attempt(ctx context.Context, key scaling.Key) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := m.look(ctx, key)
	if err == nil {
		m.queue.Forget(key)
		return
	}
	if !errors.Is(err, errLater) && !errors.Is(err, context.Canceled) {
		m.logger.Warn("mirror not written", zap.Stringer("service", key), zap.Error(err))
		m.tell(key, v1alpha1.ConditionActivatorService, state{metav1.ConditionFalse, "NotWritten", err.Error()})
	}
	m.queue.AddRateLimited(key)
}

// look compares what there is of one resource with what there should be, and writes the difference. All it knows is from
// the cache; what it writes is refused if the cache was behind.
func (m *Mirror) look(ctx context.Context, key scaling.Key) error {
	es := &v1alpha1.ElasticService{}
	if err := m.options.Cluster.Cache.Get(ctx, objectKey(key, ""), es); err != nil {
		if apierrors.IsNotFound(err) {
			return m.leave(ctx, key)
		}
		return fmt.Errorf("read ElasticService %s: %w", key, err)
	}
	m.meet(key, es.UID)
	m.mu.Lock()
	port, needs := m.ledger.port(key)
	m.mu.Unlock()
	p, err := m.plan(ctx, es, port)
	if err != nil {
		return err
	}
	if err := m.carryOut(ctx, key, p.changes); err != nil {
		return err
	}
	if needs && es.DeletionTimestamp == nil && m.options.Writes() {
		if err := m.givePort(ctx, es); err != nil {
			return err
		}
	} else if p.service.status != "" {
		m.tell(key, v1alpha1.ConditionActivatorService, p.service)
	}
	m.tell(key, v1alpha1.ConditionNameTaken, p.taken)
	return nil
}

// leave parts with a resource that is gone. What it owned goes with it; what it left behind by kubectl delete
// --cascade=orphan would lead to a port that may become another's, so we remove it.
func (m *Mirror) leave(ctx context.Context, key scaling.Key) error {
	m.part(key)
	have, err := m.service(ctx, key.Namespace, key.Name+suffix)
	if err != nil {
		return err
	}
	old, err := m.slices(ctx, key)
	if err != nil {
		return err
	}
	p := &plan{}
	p.removeOrphans(m, have, old)
	return m.carryOut(ctx, key, p.changes)
}

// plan is what is to be done for a resource, and what is to be said of it.
type plan struct {
	changes []func(ctx context.Context) error
	service state // ActivatorService; the zero value: nothing new
	taken   state // NameTaken
}

func (m *Mirror) plan(ctx context.Context, es *v1alpha1.ElasticService, at int32) (*plan, error) {
	name := es.Name + suffix
	have, err := m.service(ctx, es.Namespace, name)
	if err != nil {
		return nil, err
	}
	old, err := m.slices(ctx, keyOf(es))
	if err != nil {
		return nil, err
	}
	p := &plan{}
	switch {
	case have != nil && orphaned(have):
		// By another resource of the name: its deletion is seen, and ours made. What this one leaves behind serves until it is
		// gone.
		if es.DeletionTimestamp == nil {
			p.removeOrphans(m, have, old)
		}
		return p, nil
	case have != nil && !metav1.IsControlledBy(have, es):
		message := "a Service named " + name + " is there already, and is not this resource's; when it is deleted, Dormouse makes its own"
		p.taken = state{metav1.ConditionTrue, "ServiceExists", message}
		p.service = state{metav1.ConditionFalse, v1alpha1.ConditionNameTaken, message}
		p.removeSlices(m, es, old) // or they would be endpoints of that Service
		return p, nil
	case at == 0:
		p.service = state{metav1.ConditionFalse, "NoPort", "no port has been given to this resource yet"}
		p.removeSlices(m, es, old) // what they name may be another's by now
		return p, nil
	}
	made, err := m.planService(ctx, p, es, have, at)
	if err != nil || made == nil {
		return p, err
	}
	m.planSlices(p, es, made, old)
	return p, nil
}

// planService returns the mirror with the port that it has or gets, and the families that it has; nil: there is no mirror,
// and none is to be made. While the backend's Service is not there, or its port is not, the mirror stays as it was: requests
// go on to be held.
func (m *Mirror) planService(ctx context.Context, p *plan, es *v1alpha1.ElasticService, have *corev1.Service, at int32) (*corev1.Service, error) {
	backend, err := m.service(ctx, es.Namespace, es.Spec.Service.Name)
	if err != nil {
		return nil, err
	}
	var mirrored *corev1.ServicePort
	if backend == nil {
		p.service = state{metav1.ConditionFalse, "NoService", "there is no Service " + es.Spec.Service.Name + " to mirror"}
	} else if port, why := pod.ServicePort(backend, es.Spec.Service.Port); port != nil {
		mirrored = port
	} else {
		p.service = state{metav1.ConditionFalse, "NoServicePort", why}
	}
	switch {
	case have == nil && (mirrored == nil || es.DeletionTimestamp != nil):
		return nil, nil //nolint:nilnil // As its comment says.
	case mirrored == nil && len(have.Spec.Ports) == 0:
		return nil, nil //nolint:nilnil // As its comment says.
	case mirrored == nil:
		made := have.DeepCopy()
		made.Spec.Ports[0].TargetPort = intstr.FromInt32(at)
		return made, nil
	}
	want := wantedService(es, backend, mirrored, at)
	switch {
	case es.DeletionTimestamp != nil:
	case have == nil:
		p.add(m.create(want.DeepCopy())) // into which the answer is read
		return want, nil
	case fixed(have, want):
		p.add(m.remove(have)) // its deletion is seen, and another made
	case !sameService(have, want):
		p.add(m.patchService(have, want))
	}
	made := want.DeepCopy()
	made.Spec.IPFamilies = have.Spec.IPFamilies
	return made, nil
}

func (m *Mirror) planSlices(p *plan, es *v1alpha1.ElasticService, made *corev1.Service, old [2]*discoveryv1.EndpointSlice) {
	if !m.options.Members.Synced() {
		return // nothing is known of who serves
	}
	var s sight
	port := &made.Spec.Ports[0]
	for i, f := range families() {
		switch {
		case old[i] != nil && orphaned(old[i]) && es.DeletionTimestamp == nil:
			p.add(m.remove(old[i]))
			continue
		case old[i] != nil && !metav1.IsControlledBy(old[i], es):
			message := "an EndpointSlice named " + old[i].Name + " is there already, and is not this resource's; when it is deleted, Dormouse makes its own"
			p.service = state{metav1.ConditionFalse, v1alpha1.ConditionNameTaken, message}
			continue
		case !serviceHas(made, f):
			if old[i] != nil {
				p.add(m.remove(old[i]))
			}
			continue
		}
		port := port
		endpoints := m.endpoints(&s, keyOf(es), f, old[i], port.TargetPort.IntVal)
		if len(endpoints) == 0 {
			if at, left := m.stays(es, f, old[i], port.TargetPort.IntVal); len(left) > 0 {
				port = port.DeepCopy()
				port.TargetPort, endpoints = intstr.FromInt32(at), left
			}
		}
		want := wantedSlice(es, f, port, endpoints)
		switch {
		case old[i] == nil && (len(endpoints) == 0 || es.DeletionTimestamp != nil):
		case old[i] == nil:
			p.add(m.create(want))
		case old[i].AddressType != want.AddressType:
			p.add(m.remove(old[i])) // it cannot be changed
		case !sameSlice(old[i], want):
			p.add(m.updateSlice(old[i], want))
		}
	}
	if p.service == (state{}) {
		p.service = s.state(port.TargetPort.IntVal)
	}
}

// carryOut makes the changes, if they are ours to make by now.
func (m *Mirror) carryOut(ctx context.Context, key scaling.Key, changes []func(context.Context) error) error {
	if left := m.wait(key, len(changes)); left > 0 {
		m.queue.AddAfter(key, left)
		return nil
	}
	for _, change := range changes {
		if err := change(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wait returns how long changes are left to others.
func (m *Mirror) wait(key scaling.Key, changes int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if changes == 0 || m.options.Writes() {
		delete(m.late, key)
		return 0
	}
	now := time.Now()
	since, ok := m.late[key]
	if !ok {
		m.late[key] = now
		return patience
	}
	return patience - now.Sub(since)
}

// givePort writes a port to a resource that has none, or one that is another's, or of another range. What was written comes back by the
// cache, and only then counts.
func (m *Mirror) givePort(ctx context.Context, es *v1alpha1.ElasticService) error {
	key := keyOf(es)
	m.mu.Lock()
	port, err := m.ledger.allocate(time.Now(), key)
	m.mu.Unlock()
	if err != nil {
		m.tell(key, v1alpha1.ConditionActivatorService, state{metav1.ConditionFalse, "NoPortFree", err.Error()})
		return errLater
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": es.ResourceVersion},
		"status":   map[string]any{"activatorPort": port},
	})
	if err != nil {
		return err
	}
	written := &v1alpha1.ElasticService{ObjectMeta: metav1.ObjectMeta{Namespace: es.Namespace, Name: es.Name}}
	err = m.options.Cluster.Client.Status().Patch(ctx, written, client.RawPatch(types.MergePatchType, body))
	return outcome(fmt.Sprintf("give ElasticService %s port %d", key, port), err)
}
