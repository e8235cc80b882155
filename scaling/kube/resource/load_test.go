package resource

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

func TestAThousandResourcesAreReadAtOnce(t *testing.T) {
	const many = 1000
	w := newWorld(t)
	began := time.Now()
	names := make(chan string)
	var creators sync.WaitGroup
	for range 8 {
		creators.Go(func() {
			for name := range names {
				w.create(name)
			}
		})
	}
	for i := range many {
		names <- fmt.Sprintf("s%d", i)
	}
	close(names)
	creators.Wait()
	t.Logf("created after %v", time.Since(began))
	adopted := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.adopted) }
	w.until("all are adopted", func() bool { return adopted() == many })
	t.Logf("adopted after %v, by %d adoptions", time.Since(began), w.adoptions)
	described := func() (n int) {
		w.controller.mu.Lock()
		defer w.controller.mu.Unlock()
		for _, r := range w.controller.records {
			if r.object.Status.Phase != "" && len(r.object.Finalizers) == 1 {
				n++
			}
		}
		return n
	}
	w.until("all are described", func() bool { return described() == many })
	t.Logf("described after %v", time.Since(began))

	w.end()
	before := make(map[string]string, many)
	list := &v1alpha1.ElasticServiceList{}
	w.must(w.cluster.Client.List(t.Context(), list, client.InNamespace(w.namespace)))
	for i := range list.Items {
		before[list.Items[i].Name] = list.Items[i].ResourceVersion
	}
	w.set(func() { w.adoptions = 0 })
	began = time.Now()
	w.start()
	took := time.Since(began)
	t.Logf("read again after %v, by %d adoptions", took, w.adoptions)
	if got := adopted(); got != many {
		t.Errorf("said to be read with %d", got)
	}
	if w.adoptions != 1 {
		t.Errorf("%d adoptions at the start", w.adoptions)
	}
	if took > 5*time.Second {
		t.Errorf("reading %d resources took %v", many, took)
	}
	// A wake in one is told of while the others have nothing to tell.
	if _, err := w.scaler.ScaleUp(t.Context(), w.key("s500")); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase("s500", scaling.StateAwake)
	w.must(w.cluster.Client.List(t.Context(), list, client.InNamespace(w.namespace)))
	for i := range list.Items {
		if es := &list.Items[i]; es.Name != "s500" && es.ResourceVersion != before[es.Name] {
			t.Fatalf("%s was written to by a restart: %+v", es.Name, es.Status)
		}
	}
}

func TestTheNewestIsWrittenWhenTheAPIServerReturns(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.must(plane.cluster.Do(ctx, keeper.Kill, "kube-apiserver"))
	for i := range int32(5) {
		w.fake.SetSpec(w.key("shop"), i)
		<-time.After(200 * time.Millisecond)
	}
	if w.definition("shop") == nil {
		t.Error("it is not handed on while the API server is gone")
	}
	w.must(plane.cluster.Do(context.WithoutCancel(ctx), keeper.Restart, "kube-apiserver"))
	es := w.awaitPhase("shop", scaling.StateAwake)
	if *es.Status.Replicas != 4 {
		t.Errorf("it is said to have %d replicas", *es.Status.Replicas)
	}
}
