package feature

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
)

const reloadListen = "listen: {http: '127.0.0.1:0', control: '127.0.0.1:0', metrics: '127.0.0.1:0'}\nservices:\n"

// reload has the activator take up another list of services.
func (d *dormouse) reload(services ...string) {
	d.t.Helper()
	d.write(reloadListen + strings.Join(services, ""))
	const done = `"took up the changed file"`
	before := strings.Count(d.log.String(), done)
	d.signal(syscall.SIGHUP)
	eventually(d.t, "the file is taken up", func() bool { return strings.Count(d.log.String(), done) > before })
}

func TestSIGHUPAddsRemovesAndChangesServices(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "keep", nil),
		app(t, "route", nil),
		app(t, "change", []string{"--name=before"}),
		app(t, "drop", nil),
	}, "--rescale-duration=1h") // what was woken before it is removed must be woken anew when it returns
	keep, route, change, drop := d.pid("keep"), d.pid("route"), d.pid("change"), d.pid("drop")

	// A download from the service that stays goes on through it all.
	client := newClient(t)
	resp, err := client.Do(d.request(t.Context(), http.MethodGet, "keep", "/bytes?n=64m&cl=1", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// And so do those that the processes to be stopped are serving.
	last := []<-chan reply{
		send(client, d.request(t.Context(), http.MethodGet, "change", "/delay?headers=200ms&body=200ms", nil)),
		send(client, d.request(t.Context(), http.MethodGet, "drop", "/delay?headers=200ms&body=200ms", nil)),
	}
	d.awaitInFlight("change", 1)
	d.awaitInFlight("drop", 1)

	d.reload(
		app(t, "keep", nil),
		app(t, "route", nil, "routes: [{hosts: [other.example.com]}]"),
		app(t, "change", []string{"--name=after"}),
		app(t, "add", nil),
	)
	if n := discard(t, resp.Body); n != 64<<20 {
		t.Errorf("the download ended after %d bytes", n)
	}
	for _, r := range last {
		want(t, r, 200)
	}
	if got := d.pid("keep"); got != keep {
		t.Errorf("the service that did not change runs in process %d, and did in %d", got, keep)
	}
	if got := d.pid("route"); got != route {
		t.Errorf("the service of which only routes changed runs in process %d, and did in %d", got, route)
	}
	byHost := d.request(t.Context(), http.MethodGet, "route", "/", nil)
	byHost.Host = "other.example.com"
	if resp, _ := d.do(client, byHost); resp.StatusCode != 200 {
		t.Errorf("the new route: %s", resp.Status)
	}
	if resp, _ := d.get("change", "/"); resp.Header.Get("X-App-Name") != "after" {
		t.Errorf("the changed service answers as %q", resp.Header.Get("X-App-Name"))
	}
	if resp, _ := d.get("add", "/"); resp.StatusCode != 200 {
		t.Errorf("the new service: %s", resp.Status)
	}
	if resp, _ := d.get("drop", "/"); resp.StatusCode != 404 {
		t.Errorf("the removed service: %s, want 404", resp.Status)
	}
	awaitGone(t, change)
	awaitGone(t, drop)

	// It can come back.
	d.reload(app(t, "keep", nil), app(t, "drop", nil))
	if got := d.pid("drop"); got == drop {
		t.Errorf("process %d answered after its end", got)
	}
	if got := d.pid("keep"); got != keep {
		t.Errorf("the service that did not change runs in process %d, and did in %d", got, keep)
	}
}

func TestSIGHUPWithABadFileChangesNothing(t *testing.T) {
	t.Parallel()
	service := app(t, "shop", nil)
	d := start(t, []string{service})
	pid := d.pid("shop")
	for _, mistake := range []string{
		"services: [",
		reloadListen + app(t, "other", nil) + "  unheard: of\n",
		reloadListen + app(t, "shop", nil) + app(t, "shop", nil),
		reloadListen + app(t, "shop", nil, "idle: {after: soon}"),
	} {
		d.write(mistake)
		const kept = `"the changed file has mistakes; the services stay as they are"`
		before := strings.Count(d.log.String(), kept)
		d.signal(syscall.SIGHUP)
		eventually(t, "the mistake is logged", func() bool { return strings.Count(d.log.String(), kept) > before })
		if got := d.pid("shop"); got != pid {
			t.Errorf("the service runs in process %d, and did in %d", got, pid)
		}
		if resp, _ := d.get("other", "/"); resp.StatusCode != 404 {
			t.Errorf("a service of the bad file: %s", resp.Status)
		}
	}
	d.reload(service, app(t, "other", nil))
	if resp, _ := d.get("other", "/"); resp.StatusCode != 200 {
		t.Errorf("after the file was mended: %s", resp.Status)
	}
}

func TestRequestsHeldWhileTheFileChangesAreAnswered(t *testing.T) {
	t.Parallel()
	service, _ := gated(t, "shop", nil)
	changed, gate := gated(t, "changed", nil)
	broken, _ := gated(t, "mended", nil)
	d := start(t, []string{service, changed, broken})
	client := newClient(t)
	var removed []<-chan reply
	for range 3 {
		removed = append(removed, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
	}
	held := send(client, d.request(t.Context(), http.MethodGet, "changed", "/", nil))
	waiting := send(client, d.request(t.Context(), http.MethodGet, "mended", "/", nil))
	d.awaitHeld("shop", 3)
	d.awaitHeld("changed", 1)
	d.awaitHeld("mended", 1)
	d.reload(changed+"  hold: {timeout: 1m}\n", app(t, "mended", nil))
	for _, r := range removed {
		problemOf(t, want(t, r, 404))
	}
	want(t, waiting, 200) // from a process that is run in the new way
	d.awaitHeld("changed", 1)
	unanswered(t, "the request for the service that only changed", held)
	gate.open()
	want(t, held, 200)
}
