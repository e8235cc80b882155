package election_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/election"
	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// The tests share a control plane; each has a Lease of its own.
func TestElection(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	t.Run("with an API server", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *world){
			"who stops has ended its work before the next begins, which is soon": whoStops,
			"who stops with work left has its Lease expire":                      whoHasWorkLeft,
			"who is cut off leads no more before another does":                   whoIsCutOff,
			"a Lease that is deleted is taken by nobody else":                    aLeaseThatIsDeleted,
			"who sees another's name leads no more":                              whoSeesAnother,
			"a Lease that begins anew goes on after the terms before":            aLeaseThatBeginsAnew,
			"time in which the machine was suspended counts":                     suspension,
			"a stop takes the Lease from nobody else":                            aReleaseOfAnothers,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, newWorld(t, plane)) })
		}
	})
	t.Run("with an API server that hangs", func(t *testing.T) { anAPIServerThatHangs(t, newWorld(t, plane)) })
}

func whoStops(t *testing.T, w *world) {
	all := []*process{w.join(t, "a"), w.join(t, "b"), w.join(t, "c")}
	first := w.awaitLead(t, 0)
	old := w.process(all, first.who)
	stopped := time.Now()
	old.stop()
	second := w.awaitLead(t, first.term)
	if took := second.at.Sub(stopped); took > 2500*time.Millisecond {
		t.Errorf("the next leads %v after the stop, want within 2.5 s", took)
	}
	if second.who == first.who {
		t.Error("who has stopped leads")
	}
	released := w.await(t, "the hook of the release", func(e event) bool { return e.what == "release" && e.who == first.who })
	lost := w.await(t, "the loss", func(e event) bool { return e.what == "lost" && e.who == first.who })
	if !released.at.Before(lost.at) || !lost.at.Before(second.at) {
		t.Errorf("released at %v, lost at %v, the next led at %v; want them in this order", released.at, lost.at, second.at)
	}
	for _, p := range all {
		w.await(t, "all to know the leader", func(e event) bool {
			return p.name == first.who || e.what == "leader" && e.who == p.name && e.leader == second.who && e.term == second.term
		})
	}
}

func whoHasWorkLeft(t *testing.T, w *world) {
	all := []*process{w.join(t, "a"), w.join(t, "b")}
	first := w.awaitLead(t, 0)
	old := w.process(all, first.who)
	old.keeps = errors.New("a scale may yet be written")
	old.stop()
	stopped := time.Now()
	second := w.awaitLead(t, first.term)
	if took := second.at.Sub(stopped); took < 7*time.Second {
		t.Errorf("the next leads %v after the stop, want when the Lease expires", took)
	}
}

func whoIsCutOff(t *testing.T, w *world) {
	all := []*process{w.join(t, "a"), w.join(t, "b"), w.join(t, "c")}
	first := w.awaitLead(t, 0)
	old := w.process(all, first.who)
	cut := time.Now()
	old.wire.cut.Store(true)
	lost := w.await(t, "the loss", func(e event) bool { return e.what == "lost" })
	if took := lost.at.Sub(cut); lost.who != first.who || took < 5*time.Second || took > 7500*time.Millisecond {
		t.Errorf("%s lost after %v, want %s 7 s after its last renewal", lost.who, took, first.who)
	}
	second := w.awaitLead(t, first.term)
	if took := second.at.Sub(cut); took < 9*time.Second || took > 14500*time.Millisecond {
		t.Errorf("the next leads after %v, want 10 s after the last renewal, and within 14 s", took)
	}
	old.wire.cut.Store(false)
	w.await(t, "who was cut off to hear of the next", func(e event) bool {
		return e.what == "leader" && e.who == first.who && e.leader == second.who && e.term == second.term
	})
	// Its process has gone on: it leads when there is nobody else.
	for _, p := range all {
		if p != old {
			p.stop()
		}
	}
	w.await(t, "it to lead again", func(e event) bool { return e.what == "lead" && e.who == first.who && e.term > second.term })
}

func aLeaseThatIsDeleted(t *testing.T, w *world) {
	a := w.join(t, "a")
	first := w.awaitLead(t, 0)
	w.join(t, "b")
	w.await(t, "b to see it", func(e event) bool { return e.what == "leader" && e.who == "b" && e.leader == "a" })
	before := w.lease(t)
	if err := w.leases().Delete(t.Context(), before.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var after *coordinationv1.Lease
	eventually(t, "there is a new one", func() bool { after = w.lease(t); return after != nil && after.UID != before.UID })
	if *after.Spec.HolderIdentity != "a" || int64(*after.Spec.LeaseTransitions) != first.term {
		t.Errorf("it is %s's, of term %d; want a's, of %d", *after.Spec.HolderIdentity, *after.Spec.LeaseTransitions, first.term)
	}
	if n := w.count(func(e event) bool { return e.what == "lead" || e.what == "lost" }); n != 1 {
		t.Errorf("%d terms began or ended, want the first only: %v", n, w.events())
	}

	// Where a cannot make it anew, b does so once a has lost.
	a.wire.cut.Store(true)
	if err := w.leases().Delete(t.Context(), after.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if second := w.awaitLead(t, first.term); second.who != "b" {
		t.Errorf("%s leads, want b", second.who)
	}
}

// Somebody has deleted the Lease, and who makes it has not seen the one before. Others tell it later.
func aLeaseThatBeginsAnew(t *testing.T, w *world) {
	w.floor.Store(5)
	w.join(t, "a")
	if first := w.awaitLead(t, 0); first.term != 6 {
		t.Fatalf("it begins with the term %d, want 6", first.term)
	}
	w.floor.Store(50)
	w.await(t, "the loss", func(e event) bool { return e.what == "lost" })
	if second := w.awaitLead(t, 6); second.term != 51 {
		t.Errorf("it goes on with the term %d, want 51", second.term)
	}
}

func whoSeesAnother(t *testing.T, w *world) {
	w.join(t, "a")
	first := w.awaitLead(t, 0)
	named := time.Now()
	w.name(t, "stranger")
	lost := w.await(t, "the loss", func(e event) bool { return e.what == "lost" })
	if took := lost.at.Sub(named); took > 3*time.Second {
		t.Errorf("it led for %v beside the stranger, want until its next renewal", took)
	}
	heard := w.await(t, "the stranger", func(e event) bool { return e.what == "leader" && e.leader == "stranger" })
	if heard.term != first.term {
		t.Errorf("the stranger leads in term %d, want what the Lease says, %d", heard.term, first.term)
	}
	again := w.awaitLead(t, first.term) // it never renews
	if took := again.at.Sub(heard.at); took < 9*time.Second {
		t.Errorf("the stranger's Lease was taken after %v, want 10 s", took)
	}
}

func suspension(t *testing.T, w *world) {
	p := w.join(t, "a")
	w.awaitLead(t, 0)
	for skip := 5 * time.Second; skip <= 10*time.Second; skip += 5 * time.Second { // each after a renewal
		p.skipped.Store(int64(skip))
		for range 2 { // the first may have begun before
			version := w.lease(t).ResourceVersion
			eventually(t, "it renews", func() bool { return w.lease(t).ResourceVersion != version })
		}
	}
	if n := w.count(func(e event) bool { return e.what == "lost" }); n != 0 {
		t.Error("it lost what it had renewed in time")
	}
	p.wire.cut.Store(true)
	p.skipped.Add(int64(7 * time.Second))
	woke := time.Now()
	lost := w.await(t, "the loss", func(e event) bool { return e.what == "lost" })
	if took := lost.at.Sub(woke); took > time.Second {
		t.Errorf("it went on for %v after 7 s of suspension", took)
	}
}

func aReleaseOfAnothers(t *testing.T, w *world) {
	p := w.join(t, "a")
	w.awaitLead(t, 0)
	p.wire.cut.Store(true)
	w.name(t, "stranger")
	go p.stop()
	w.await(t, "the hook", func(e event) bool { return e.what == "release" })
	p.wire.cut.Store(false)
	p.stop()
	if got := *w.lease(t).Spec.HolderIdentity; got != "stranger" {
		t.Errorf("the Lease is %q's, want the stranger's", got)
	}
}

func anAPIServerThatHangs(t *testing.T, w *world) {
	w.join(t, "a")
	w.join(t, "b")
	first := w.awaitLead(t, 0)
	began := time.Now()
	w.order(t, keeper.Stop)
	lost := w.await(t, "the loss", func(e event) bool { return e.what == "lost" })
	if took := lost.at.Sub(began); took < 5*time.Second || took > 8*time.Second {
		t.Errorf("lost %v after the stop, want 7 s after the last renewal", took)
	}
	<-time.After(time.Until(began.Add(12 * time.Second)))
	w.order(t, keeper.Continue)
	again := w.awaitLead(t, first.term)
	if took := again.at.Sub(began); took < 12*time.Second || took > 18*time.Second {
		t.Errorf("led again %v after the stop of 12 s", took)
	}
}

// event is one call of a hook.
type event struct {
	at     time.Time
	who    string
	what   string // lead, lost, leader or release
	leader string
	term   int64
}

// world is one Lease, and what its candidates were told.
type world struct {
	plane     *testcluster.Cluster
	kube      kubernetes.Interface
	namespace string
	floor     atomic.Int64 // the highest term that others know of

	mu      sync.Mutex // guards the following
	all     []event
	leading map[string]int64
	highest int64
	changed chan struct{} // closed with the next event
}

func newWorld(t *testing.T, plane *testcluster.Cluster) *world {
	t.Helper()
	w := &world{plane: plane, leading: make(map[string]int64), changed: make(chan struct{})}
	w.kube = w.connect(t, nil).Kube
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "election-"}}
	made, err := w.kube.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.namespace = made.Name
	return w
}

// note takes in an event, and fails the test where two lead at once, or a term is not the greatest so far.
func (w *world) note(t *testing.T, e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.at = time.Now()
	switch e.what {
	case "lead":
		for other, term := range w.leading {
			t.Errorf("%s leads in term %d while %s does in %d", e.who, e.term, other, term)
		}
		if e.term <= w.highest {
			t.Errorf("%s leads in term %d, after %d", e.who, e.term, w.highest)
		}
		w.leading[e.who], w.highest = e.term, e.term
	case "lost":
		if w.leading[e.who] == 0 {
			t.Errorf("%s lost what it did not have", e.who)
		}
		delete(w.leading, e.who)
	}
	w.all = append(w.all, e)
	close(w.changed)
	w.changed = make(chan struct{})
}

// await returns the first event that is as wanted, past or future.
func (w *world) await(t *testing.T, what string, is func(event) bool) event {
	t.Helper()
	late := time.After(40 * time.Second)
	for n := 0; ; {
		w.mu.Lock()
		news, changed := w.all[n:], w.changed
		w.mu.Unlock()
		for _, e := range news {
			if n++; is(e) {
				return e
			}
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waited for %s; there was %v", what, w.events())
		}
	}
}

func (w *world) awaitLead(t *testing.T, after int64) event {
	t.Helper()
	return w.await(t, fmt.Sprintf("a leader after term %d", after), func(e event) bool { return e.what == "lead" && e.term > after })
}

func (w *world) events() []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]event(nil), w.all...)
}

func (w *world) count(is func(event) bool) (n int) {
	for _, e := range w.events() {
		if is(e) {
			n++
		}
	}
	return n
}

// process is a candidate with a connection of its own.
type process struct {
	name    string
	wire    *wire
	skipped atomic.Int64 // nanoseconds in which the machine was suspended
	keeps   error        // what its Release says; not changed once it stops
	stop    func()       // and wait; again and again
}

func (w *world) process(all []*process, name string) *process {
	for _, p := range all {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (w *world) join(t *testing.T, name string) *process {
	t.Helper()
	p := &process{name: name, wire: &wire{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	client := w.connect(t, p.wire).Kube.CoordinationV1()
	go func() {
		ended <- election.Run(ctx, election.Options{
			Client: client, Namespace: w.namespace, Name: "activators", Identity: name, Logger: zaptest.NewLogger(t),
			Now:   func() time.Duration { return time.Since(began) + time.Duration(p.skipped.Load()) },
			Floor: w.floor.Load,
			Lead: func(ctx context.Context, term int64) {
				if ctx.Err() != nil {
					t.Error("a term that begins has ended")
				}
				w.note(t, event{who: name, what: "lead", term: term})
			},
			Lost: func() { w.note(t, event{who: name, what: "lost"}) },
			Leader: func(leader string, term int64) {
				w.note(t, event{who: name, what: "leader", leader: leader, term: term})
			},
			Release: func(context.Context) error {
				w.note(t, event{who: name, what: "release"})
				return p.keeps
			},
		})
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

// wire leads to the API server, or nowhere.
type wire struct {
	next http.RoundTripper
	cut  atomic.Bool
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.cut.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return w.next.RoundTrip(r)
}

func (w *world) connect(t *testing.T, through *wire) *cluster.Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if through != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { through.next = next; return through })
	}
	c, err := cluster.Connect(cluster.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) leases() coordinationclient.LeaseInterface {
	return w.kube.CoordinationV1().Leases(w.namespace)
}

// lease returns the Lease, or nil.
func (w *world) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	l, err := w.leases().Get(t.Context(), "activators", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// name has the Lease name another holder.
func (w *world) name(t *testing.T, holder string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"holderIdentity":%q}}`, holder)
	if _, err := w.leases().Patch(t.Context(), "activators", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) order(t *testing.T, action keeper.Action) {
	t.Helper()
	if err := w.plane.Do(t.Context(), action, string(components.APIServer)); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not within 20 s", what)
	}
}
