package feature

import (
	"fmt"
	"net/http"
	"testing"
)

// addresses returns where the first n processes of a service are.
func (d *dormouse) addresses(service string, n int) (all []string) {
	d.t.Helper()
	seen := map[string]bool{}
	d.await("the processes of "+service, func(line map[string]any) bool {
		address, _ := line["address"].(string)
		if line["msg"] == "process started" && line["service"] == "default/"+service && !seen[address] {
			seen[address] = true
			all = append(all, address)
		}
		return len(all) == n
	})
	return all
}

func TestMaxConcurrencyIsNeverExceeded(t *testing.T) {
	t.Parallel()
	const replicas, permits, requests = 3, 2, 200
	for name, endpoint := range map[string]string{"HTTP1": "http1", "H2C": "h2c"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, []string{app(t, "shop", []string{"--protocol=" + endpoint, "--listen-delay=100ms"},
				fmt.Sprintf("replicas: {wake: %d}\nendpoint: {protocol: %s, maxConcurrency: %d}", replicas, name, permits))})
			d.tell("shop", "wake")
			eventually(t, "all are ready", func() bool { return d.status("shop")["readyEndpoints"] == float64(replicas) })
			answers := make(chan reply, requests)
			client := newClient(t)
			for i := range requests {
				path := fmt.Sprintf("/delay?headers=%dms", i%10)
				r := d.request(t.Context(), http.MethodGet, "shop", path, nil)
				go func() { answers <- sendNow(client, r) }()
			}
			for range requests {
				want(t, answers, http.StatusOK)
			}
			total := int64(0)
			probe, _ := h2cClient(t)
			for _, address := range d.addresses("shop", replicas) {
				if endpoint == "http1" {
					probe = newClient(t)
				}
				c := countWith(t, probe, address)
				total += c.Requests
				if c.MaxInFlight > permits {
					t.Errorf("%s had %d requests in flight, more than its %d", address, c.MaxInFlight, permits)
				}
				if c.MaxInFlight == 0 {
					t.Errorf("%s had nothing to do", address)
				}
			}
			if total != requests {
				t.Errorf("endpoints saw %d requests, want %d", total, requests)
			}
			d.awaitInFlight("shop", 0)
		})
	}
}

func TestPermitsGoToTheOldest(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop", "endpoint: {maxConcurrency: 1}")})
	const requests = 20
	arrived, proceed := make(chan string, requests), make(chan struct{})
	d.serve("shop", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		<-proceed
	})
	answers := make(chan reply, requests)
	client := newClient(t)
	for i := range requests {
		r := d.request(t.Context(), http.MethodGet, "shop", fmt.Sprintf("/%d", i), nil)
		go func() { answers <- sendNow(client, r) }()
		if i == 0 {
			d.awaitInFlight("shop", 1)
		} else {
			d.awaitHeld("shop", i)
		}
	}
	for i := range requests {
		if got := receive(t, "a request", arrived); got != fmt.Sprintf("/%d", i) {
			t.Errorf("%s came as number %d", got, i)
		}
		proceed <- struct{}{}
		want(t, answers, http.StatusOK)
	}
}

func TestLeastLoadedEndpointIsChosen(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "replicas: {wake: 2}")})
	d.tell("shop", "wake")
	addresses := d.addresses("shop", 2)
	eventually(t, "both are ready", func() bool { return d.status("shop")["readyEndpoints"] == 2.0 })
	// One is busy with this until the test ends; all else goes to the other.
	busy, err := newClient(t).Do(d.request(t.Context(), http.MethodGet, "shop", "/sse?n=0&delay=1h", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Body.Close()
	for range 20 {
		d.get("shop", "/")
		d.awaitInFlight("shop", 1) // the client may have its answer a moment before the endpoint is free
	}
	for _, address := range addresses {
		if c := count(t, address); c.InFlight == 1 && c.Requests != 1 || c.InFlight == 0 && c.Requests != 20 {
			t.Errorf("%s has had %d requests, %d of which go on", address, c.Requests, c.InFlight)
		}
	}
}
