package resource

import (
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// restartLight has the next process set no finalizers.
func (w *world) restartLight() {
	w.Helper()
	w.end()
	w.light = true
	w.start()
}

func light(es *v1alpha1.ElasticService) bool {
	return es != nil && len(es.Finalizers) == 0 && es.Status.Phase != ""
}

// Where the right to remove it would go with the namespace, a finalizer would keep both for ever.
func TestWithoutFinalizersATargetIsWokenWhenItsResourceIsGone(t *testing.T) {
	w := newWorld(t)
	w.create("old")
	w.await("old", "finalized", finalized)
	w.restartLight()
	w.await("old", "it has no finalizer any more", light)
	w.create("shop")
	w.create("left", func(es *v1alpha1.ElasticService) { es.Spec.OnDelete = v1alpha1.DeleteLeave })
	for _, name := range []string{"shop", "left"} {
		w.await(name, "it has no finalizer", light)
		w.remove(name)
		w.awaitGone(name)
		w.until("it is not handed on any more", func() bool { return w.definition(name) == nil })
	}
	if got := w.fake.Scales(w.key("shop")); len(got) != 1 || got[0] != 1 {
		t.Errorf("the scale of shop was written %v", got)
	}
	if got := w.fake.Scales(w.key("left")); len(got) != 0 {
		t.Errorf("the scale of left was written %v", got)
	}
}

func TestWithoutFinalizersATargetOfAnotherResourceIsLeftToIt(t *testing.T) {
	w := newWorld(t)
	w.restartLight()
	w.create("shop")
	w.create("twin", func(es *v1alpha1.ElasticService) { es.Spec.ScaleTargetRef.Name = "shop" })
	w.await("shop", "it is taken up", light)
	w.await("twin", "it is taken up", light)
	w.remove("shop")
	w.awaitGone("shop")
	w.until("it is not handed on any more", func() bool { return w.definition("shop") == nil })
	if got := w.fake.Scales(w.key("shop")); len(got) != 0 {
		t.Errorf("its scale was written %v", got)
	}
}

func TestWithoutFinalizersWhoWaitsIsServed(t *testing.T) {
	w := newWorld(t)
	w.restartLight()
	w.create("shop")
	w.await("shop", "it is taken up", light)
	w.gates.set(w.key("shop"), scaling.Activity{Held: 1})
	w.remove("shop")
	w.awaitGone("shop")
	w.until("its target is woken", func() bool { return len(w.fake.Scales(w.key("shop"))) == 1 })
	if w.definition("shop") == nil {
		t.Error("who waits for it is refused")
	}
	w.gates.set(w.key("shop"), scaling.Activity{})
	w.controller.markDirty()
	w.until("it is not handed on any more", func() bool { return w.definition("shop") == nil })
}
