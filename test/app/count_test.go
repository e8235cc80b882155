package main

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// contextWithCancel is a context that ends with the test or before.
func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

func TestCountTellsRequestsAndTheirConcurrency(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		const n = 20
		ctx, leave := contextWithCancel(t)
		var clients sync.WaitGroup
		for range n {
			req := request(t, "GET", app.URL("/stall"), nil).WithContext(ctx)
			clients.Go(func() {
				if resp, err := c.Do(req); err == nil {
					resp.Body.Close()
				}
			})
		}
		observer := http1(t)
		eventually(t, "all in flight", func() bool { return counts(t, app, observer)["inFlight"] == n })
		leave()
		clients.Wait()
		eventually(t, "all ended", func() bool { return counts(t, app, observer)["inFlight"] == 0 })

		get(t, observer, app.URL("/healthz")) // not counted
		do(t, observer, request(t, "POST", app.URL("/upload"), strings.NewReader("x")))
		got := counts(t, app, observer)
		if got["connections"] < 2 {
			t.Errorf("%d connections", got["connections"])
		}
		delete(got, "connections")
		want := map[string]int64{"requests": n + 1, "inFlight": 0, "maxInFlight": n, "cancelled": n, "uploads": 1, "truncated": 0}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestCountDoesNotTakeACrashForACancel(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for _, how := range []string{"reset", "fin"} {
			if resp, err := c.Do(request(t, "POST", app.URL("/crash?headers=0&how="+how), nil)); err == nil {
				resp.Body.Close()
				t.Errorf("%s: status %d", how, resp.StatusCode)
			}
		}
		eventually(t, "ended", func() bool { return counts(t, app, c)["inFlight"] == 0 })
		if got := counts(t, app, c); got["requests"] != 2 || got["cancelled"] != 0 {
			t.Errorf("got %v", got)
		}
	})
}
