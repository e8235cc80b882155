package elastiserver

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

func TestTheListHasEveryServiceAsConfigured(t *testing.T) {
	_, server := online(t, serviceOf("web", "shop"), serviceOf("api", "shop"), serviceOf("web", "blog"))
	var got services
	ask(t, server, "GET", "/api/v1/services", "").decode(t, 200, &got)
	var names []string
	for _, s := range got.Services {
		names = append(names, s.Namespace+"/"+s.Name+" "+s.State)
	}
	if want := []string{"web/shop Asleep", "api/shop Asleep", "web/blog Asleep"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestAListOfNothingIsAnEmptyList(t *testing.T) {
	_, server := online(t)
	if got := ask(t, server, "GET", "/api/v1/services", "").body; got != "{\"services\":[]}\n" {
		t.Errorf("got %s", got)
	}
}

func TestAServiceShowsItsStatus(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	began := time.Now()
	w.wake(t, shop.Key)
	w.gates.mu.Lock()
	w.gates.activity[shop.Key] = scaling.Activity{Held: 2, InFlight: 3, Carried: true, Last: began}
	w.gates.mu.Unlock()

	a := ask(t, server, "GET", "/api/v1/services/web/shop", "")
	var got service
	a.decode(t, 200, &got)
	for name, at := range map[string]time.Time{"since": got.Since, "lastWake": got.LastWake, "lastActive": got.LastActive} {
		if at.Before(began.Add(-time.Second)) || at.After(time.Now()) || at.Location() != time.UTC {
			t.Errorf("%s is %v", name, at)
		}
	}
	one := int32(1)
	want := service{
		Namespace: "web", Name: "shop", Target: target{"Process", "web", "shop"},
		State: "Awake", Since: got.Since, Replicas: &one, ReadyEndpoints: 1,
		Held: 2, InFlight: 3, LastActive: got.LastActive,
		LastWake: got.LastWake, LastColdStartSeconds: got.LastColdStartSeconds,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(a.body), &fields); err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"failure", "pinnedUntil", "noTrafficYet"} {
		if value, ok := fields[absent]; ok {
			t.Errorf("%s is there, and %v", absent, value)
		}
	}
}

func TestAServiceThatCannotStartSaysWhy(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
	states := w.states(shop.Key)
	if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); err != nil {
		t.Fatal(err)
	}
	w.fake.Fail(shop.Key, &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: "exit code 1"})
	states.await(t, scaling.StateFailed)

	var got service
	ask(t, server, "GET", "/api/v1/services/web/shop", "").decode(t, 200, &got)
	want := &failure{scaling.ReasonCrashLoop, "exit code 1"}
	if got.State != "Failed" || !reflect.DeepEqual(got.Failure, want) {
		t.Errorf("got %s and %+v, want Failed and %+v", got.State, got.Failure, want)
	}
}

func TestAServiceIsWokenAndPutToSleep(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	const path = "/api/v1/services/web/shop"
	states := w.states(shop.Key)

	for _, want := range []string{"started", "joined"} {
		var got done
		ask(t, server, "POST", path+"/wake", "").decode(t, 200, &got)
		if got.Outcome != want || got.Service.Name != "shop" || *got.Service.Replicas != 1 {
			t.Errorf("got %+v, want outcome %s", got, want)
		}
	}
	states.await(t, scaling.StateAwake)
	for range 2 { // a service that sleeps may be put to sleep
		var got done
		ask(t, server, "POST", path+"/sleep", "").decode(t, 200, &got)
		if got.Outcome != "asleep" || got.Service.State != "Asleep" || *got.Service.Replicas != 0 {
			t.Errorf("got %+v, want it asleep", got)
		}
	}
	if got := w.fake.Scales(shop.Key); !slices.Equal(got, []int32{1, 0}) {
		t.Errorf("the service was scaled to %v", got)
	}
}

func TestAServiceInUseIsNotPutToSleep(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	w.wake(t, shop.Key)
	w.gates.mu.Lock()
	w.gates.activity[shop.Key] = scaling.Activity{InFlight: 1}
	w.gates.mu.Unlock()
	ask(t, server, "POST", "/api/v1/services/web/shop/sleep", "").problem(t, 409)
	if got := w.fake.Scales(shop.Key); !slices.Equal(got, []int32{1}) {
		t.Errorf("the service was scaled to %v", got)
	}
}

func TestAPinKeepsAServiceAwakeUntilItIsTakenBack(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	const path = "/api/v1/services/web/shop"
	states := w.states(shop.Key)
	for _, length := range []time.Duration{time.Hour, maxPin} {
		var got done
		ask(t, server, "POST", path+"/pin?for="+length.String(), "").decode(t, 200, &got)
		left := time.Until(got.Service.PinnedUntil)
		if got.Outcome != "pinned" || left > length || left < length-time.Minute {
			t.Errorf("got %+v, want it pinned for %v", got, length)
		}
	}
	states.await(t, scaling.StateAwake)
	ask(t, server, "POST", path+"/sleep", "").problem(t, 409)

	var got done
	ask(t, server, "POST", path+"/pin?for=0", "").decode(t, 200, &got)
	if got.Outcome != "unpinned" || !got.Service.PinnedUntil.IsZero() {
		t.Errorf("got %+v, want it unpinned", got)
	}
	ask(t, server, "POST", path+"/sleep", "").decode(t, 200, &got)
	if got.Service.State != "Asleep" {
		t.Errorf("got %+v, want it asleep", got)
	}
}

// keeper keeps the pins of a target's services together, as on a cluster.
type keeper struct {
	handler *scaling.ScaleHandler
	pins    map[scaling.Key]time.Time
}

func (k *keeper) Pin(ctx context.Context, service scaling.Key, until time.Time) error {
	k.pins[service] = until
	return k.handler.Pin(ctx, service, slices.MaxFunc(slices.Collect(maps.Values(k.pins)), time.Time.Compare))
}

func TestAPinOfAnotherServiceOfTheTargetStays(t *testing.T) {
	shop, other := serviceOf("web", "shop"), serviceOf("web", "shop-grpc")
	other.Target = shop.Target
	w, server := online(t, shop, other)
	w.KeepPins(&keeper{w.handler, make(map[scaling.Key]time.Time)})
	pin := func(name, length string) time.Duration {
		var got done
		ask(t, server, "POST", "/api/v1/services/web/"+name+"/pin?for="+length, "").decode(t, 200, &got)
		return time.Until(got.Service.PinnedUntil).Round(time.Minute)
	}
	for _, c := range []struct {
		name, length string
		left         time.Duration
	}{{"shop", "5h", 5 * time.Hour}, {"shop-grpc", "1h", 5 * time.Hour}, {"shop-grpc", "0", 5 * time.Hour}, {"shop-grpc", "1h", 5 * time.Hour}, {"shop", "0", time.Hour}} {
		if left := pin(c.name, c.length); left != c.left {
			t.Errorf("%s pinned for %s: the target is pinned for %v, want %v", c.name, c.length, left, c.left)
		}
	}
	ask(t, server, "POST", "/api/v1/services/web/nobody/pin?for=1h", "").problem(t, 404)
}

func TestAPinNamesAWrongDuration(t *testing.T) {
	w, server := online(t, serviceOf("web", "shop"))
	for query, field := range map[string]string{
		"": "for", "?": "for", "?for=": "for", "?for=1": "for", "?for=soon": "for", "?for=-1h": "for", "?for=721h": "for",
		"?for=9999999h": "for", "?for=1h&for=2h": "for", "?For=1h": "for", "?for=1h%zz": "", "?for=1h;x=y": "",
	} {
		p := ask(t, server, "POST", "/api/v1/services/web/shop/pin"+query, "").problem(t, 400)
		if p.Field != field || !strings.Contains(p.Detail, field) {
			t.Errorf("%q: the field at fault is %q, want %q; the detail is %q", query, p.Field, field, p.Detail)
		}
	}
	if got := w.fake.Scales(scaling.Key{Namespace: "web", Name: "shop"}); len(got) != 0 {
		t.Errorf("the service was scaled to %v", got)
	}
}

func TestAnUnknownServiceIs404(t *testing.T) {
	_, server := online(t, serviceOf("web", "shop"))
	for _, key := range []string{"web/nobody", "other/shop", "WEB/shop", "web/shop%20", "web%2Fshop/x", "%00/%ff"} {
		path := "/api/v1/services/" + key
		ask(t, server, "GET", path, "").problem(t, 404)
		for _, wish := range []string{"/wake", "/sleep", "/pin?for=1h", "/pin?for=0"} {
			ask(t, server, "POST", path+wish, "").problem(t, 404)
		}
	}
}

// states are the states that a service comes to.
type states struct{ ch chan scaling.State }

// states follows a service's states until the test ends.
func (w *world) states(key scaling.Key) states {
	s := states{make(chan scaling.State, 100)}
	w.handler.Subscribe(func(n scaling.Notice) {
		if n.Kind == scaling.NoticeState && slices.Contains(n.Services, key) {
			s.ch <- n.To
		}
	})
	return s
}

func (s states) await(t *testing.T, want scaling.State) {
	t.Helper()
	for {
		select {
		case got := <-s.ch:
			if got == want {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the service did not come to be %v", want)
		}
	}
}

// wake wakes a service and waits until it is awake.
func (w *world) wake(t *testing.T, key scaling.Key) {
	t.Helper()
	states := w.states(key)
	if _, err := w.Wake(t.Context(), key, metrics.SourceAPI); err != nil {
		t.Fatal(err)
	}
	states.await(t, scaling.StateAwake)
}
