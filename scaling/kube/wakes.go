package kube

import (
	"sync"

	"github.com/dormouse-dev/dormouse/scaling/kube/target"
)

// wakes tells the targets which of them wake, and how many pods each has left. Several services may share a target.
type wakes struct {
	targets *target.Targets

	mu   sync.Mutex // guards the following
	refs map[*service]target.Ref
	pods map[target.Ref]map[*service]int // how many each sees; negative: not known yet
}

func newWakes(targets *target.Targets) *wakes {
	return &wakes{targets: targets, refs: make(map[*service]target.Ref), pods: make(map[target.Ref]map[*service]int)}
}

// begin is called when a service begins to watch its pods.
func (w *wakes) begin(ref target.Ref, s *service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refs[s] = ref
	if w.pods[ref] == nil {
		w.pods[ref] = make(map[*service]int)
		w.targets.Awaken(ref, true)
	}
	w.pods[ref][s] = -1
}

// count is called when it has seen how many there are, those that end included.
func (w *wakes) count(s *service, pods int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ref, ok := w.refs[s]
	if !ok || w.pods[ref][s] == pods {
		return
	}
	w.pods[ref][s] = pods
	most := 0
	for _, n := range w.pods[ref] {
		if n < 0 {
			return // who has just begun may see more
		}
		most = max(most, n)
	}
	w.targets.PodsLeft(ref, most)
}

// end is called when it ends to watch them.
func (w *wakes) end(s *service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ref, ok := w.refs[s]
	if !ok {
		return
	}
	delete(w.refs, s)
	delete(w.pods[ref], s)
	if len(w.pods[ref]) == 0 {
		delete(w.pods, ref)
		w.targets.Awaken(ref, false)
	}
}
