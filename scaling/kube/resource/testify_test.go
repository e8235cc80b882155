package resource

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// An activator that is about to end has carried a service's first request. The one that writes the status has not seen it.
func TestWhoDoesNotWriteTellsThatARequestWasCarried(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	w.set(func() { w.writes = false })
	used := time.Now()
	w.gates.set(w.key("shop"), scaling.Activity{Carried: true, Last: used})
	w.controller.touch(w.key("shop"))
	es := w.await("shop", "known to have been used", func(es *v1alpha1.ElasticService) bool { return es.Status.LastActiveTime != nil })
	if es.Status.LastActiveTime.Unix() != used.Unix() || es.Status.Phase != "Asleep" {
		t.Errorf("got %+v, want but the time of its use to be new", es.Status)
	}
	w.until("the others' definition knows it", func() bool { return w.definition("shop").Service.History.Carried })
}

func TestItIsToldAtTheEndAlthoughTheStatusIsBeingWritten(t *testing.T) {
	w := newWorld(t)
	w.create("shop")
	w.awaitPhase("shop", scaling.StateAsleep)
	w.set(func() { w.writes = false })
	// What the writer has written last is not known here yet: the watch lags.
	w.intercept(func(r *http.Request) *http.Response {
		if !strings.Contains(r.URL.Path, "/elasticservices") || r.Method != http.MethodPatch {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("resourceVersion")) {
			return failing(r, http.StatusConflict, metav1.StatusReasonConflict)
		}
		return nil
	})
	w.gates.set(w.key("shop"), scaling.Activity{Carried: true, Last: time.Now()})
	w.end()
	if es := w.get("shop"); es.Status.LastActiveTime == nil {
		t.Error("nobody will ever know that it was used")
	}
}
