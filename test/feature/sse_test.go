package feature

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestEventsAreFlushedOneByOne(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	d := startTLS(t, ca, t.TempDir(), []string{sham(t, "one"), sham(t, "two", "endpoint: {protocol: H2C}")})
	// The endpoint says nothing before the client has seen what it said before: what is kept back anywhere is never sent.
	seen := make(chan struct{}, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		if r.URL.Query().Get("length") != "" {
			w.Header().Set("Content-Length", r.URL.Query().Get("length"))
		}
		for i := range 5 {
			fmt.Fprintf(w, "data: event %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
				return
			}
		}
	}
	d.serve("one", handler)
	d.serve("two", handler)

	ways := clients(t)
	ways["HTTP/1.1 over TLS"], ways["HTTP/2 over TLS"] = newTLS(t, ca, "http/1.1"), newTLS(t, ca, "h2")
	for name, client := range ways {
		for _, service := range []string{"one", "two"} {
			for _, query := range []string{"type=text/event-stream", "type=application/json", "type=text/plain&length=75"} {
				t.Run(name+" "+service+" "+query, func(t *testing.T) {
					d := d.in(t)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					r := d.request(ctx, http.MethodGet, service, "/?"+query, nil)
					if strings.HasSuffix(name, "TLS") {
						r.URL.Scheme, r.URL.Host = "https", d.https
					}
					resp, err := client.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					events := bufio.NewReader(resp.Body)
					for i := range 5 {
						line, err := events.ReadString('\n')
						if want := fmt.Sprintf("data: event %d\n", i); line != want || err != nil {
							t.Fatalf("%q, %v; want %q", line, err, want)
						}
						_, _ = events.ReadString('\n')
						seen <- struct{}{}
					}
					if rest, err := io.ReadAll(events); len(rest) > 0 || err != nil {
						t.Errorf("%q, %v; want the end", rest, err)
					}
				})
			}
		}
	}
}

func TestPiecesOfAnySizeAreFlushed(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "one"), sham(t, "two", "endpoint: {protocol: H2C}")})
	sizes := []int{1, 2047, 2048, 4096, 16 << 10, 32 << 10, 64 << 10, 100_000} // of the buffers on the way, and others
	seen := make(chan struct{}, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		for _, size := range sizes {
			_, _ = w.Write(letters(size))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
				return
			}
		}
	}
	d.serve("one", handler)
	d.serve("two", handler)
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				resp, err := client.Do(d.request(t.Context(), http.MethodGet, service, "/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for _, size := range sizes {
					if n, err := io.ReadFull(resp.Body, make([]byte, size)); err != nil {
						t.Fatalf("%d bytes of a piece of %d: %v", n, size, err)
					}
					seen <- struct{}{}
				}
			})
		}
	}
}

func TestEventsComeThroughAColdStart(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--listen-delay=100ms"})})
	resp, body := d.get("shop", "/sse?n=3&delay=1ms")
	if resp.Header.Get("Content-Type") != "text/event-stream" || strings.Count(body, "data: event ") != 3 {
		t.Errorf("%v %q", resp.Header, body)
	}
}

func TestEndpointLearnsThatTheListenerOfEventsLeft(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil)})
	d.get("shop", "/")
	address := d.address("shop")
	for name, client := range clients(t) {
		before := count(t, address).Cancelled
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := client.Do(d.request(ctx, http.MethodGet, "shop", "/sse?n=0&delay=20ms", nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		cancel()
		_ = resp.Body.Close()
		eventually(t, name+": the endpoint's request has ended", func() bool {
			c := count(t, address)
			return c.InFlight == 0 && c.Cancelled == before+1
		})
	}
}
