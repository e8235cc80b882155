package mirror

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// told is what Report was told of a resource, by type of condition. The same name may come back as another resource.
type told struct {
	of         types.UID
	conditions map[string]state
}

// state is what a condition says; the zero value is that there is none.
type state struct {
	status          metav1.ConditionStatus
	reason, message string
}

// meet begins to tell of a resource.
func (m *Mirror) meet(key scaling.Key, uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.told[key]; t == nil || t.of != uid {
		m.told[key] = &told{of: uid, conditions: make(map[string]state, 2)}
	}
}

// part takes back what was told of a resource that is gone, and forgets the rest of it.
func (m *Mirror) part(key scaling.Key) {
	m.peers.forget(key)
	for _, conditionType := range []string{v1alpha1.ConditionActivatorService, v1alpha1.ConditionNameTaken} {
		m.tell(key, conditionType, state{})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.told, key)
}

// tell tells of a condition, if it is news.
func (m *Mirror) tell(key scaling.Key, conditionType string, now state) {
	m.mu.Lock()
	t := m.told[key]
	if t == nil || t.conditions[conditionType] == now {
		m.mu.Unlock()
		return
	}
	t.conditions[conditionType] = now
	m.mu.Unlock()
	m.options.Report(key, conditionType, now.status, now.reason, now.message)
}
