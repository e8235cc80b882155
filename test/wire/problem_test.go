package wire

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// problem is what RFC 9457 says a problem has.
type problem struct {
	Type, Title, Detail, Reason, Message string
	Status                               int
}

func problemIn(t *testing.T, resp *http.Response, body string) (p problem) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err, body)
	}
	if p.Status != resp.StatusCode || p.Title == "" || p.Detail == "" || !strings.HasPrefix(p.Type, "urn:dormouse:problem:") {
		t.Errorf("%s %+v", resp.Status, p)
	}
	return p
}

// causes are the ways not to be served, by name: each makes a proxy whose first request fails so.
func causes(t *testing.T) map[string]func() *proxy {
	start := func(view *scaling.View, change ...func(*activator.Config, *scaling.Service)) func() *proxy {
		return func() *proxy {
			p := newProxy(t, change...)
			p.gates.Publish(key, view)
			return p
		}
	}
	failure := &scaling.Failure{Reason: scaling.ReasonCrashLoop, Message: "password is 1234"}
	return map[string]func() *proxy{
		"unknown": start(&scaling.View{}, func(_ *activator.Config, s *scaling.Service) { s.Key.Name = "other" }),
		"failed":  start(&scaling.View{Failure: failure, Typical: 2500 * time.Millisecond}),
		"timeout": start(&scaling.View{Typical: 12 * time.Second}, func(_ *activator.Config, s *scaling.Service) {
			s.Hold.Timeout = 20 * time.Millisecond
		}),
		"bound": func() *proxy {
			p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Hold.MaxRequests = 1 })
			p.raw(t, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
			p.awaitHeld(1)
			return p
		},
		"process bound": func() *proxy {
			p := newProxy(t)
			p.gates.Budget.MaxBytes = 1000
			return p
		},
		"dies": func() *proxy {
			p := newProxy(t)
			p.rawEndpoint(func(c net.Conn) { readRequest(c); _ = c.Close() })
			return p
		},
		"late": func() *proxy {
			p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.ResponseHeader = 20 * time.Millisecond })
			p.rawEndpoint(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			return p
		},
		"total": func() *proxy {
			p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.Total = 20 * time.Millisecond })
			p.rawEndpoint(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			return p
		},
		"idle": func() *proxy {
			p := newProxy(t, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.Idle = 20 * time.Millisecond })
			p.rawEndpoint(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			return p
		},
	}
}

func TestProblemsSayWhatIsWrongAndNothingElse(t *testing.T) {
	want := map[string]struct {
		status     int
		retryAfter string
		kind       string
		reason     string
		refusal    string
		grpc       string
	}{
		"unknown":       {404, "", "no-such-service", "", "unrouted", "12"},
		"failed":        {503, "3", "wake-failed", "CrashLoop", "failed", "14"},
		"timeout":       {504, "12", "hold-timeout", "HoldTimeout", "timeout", "14"},
		"bound":         {503, "5", "service-bound", "", "service_bound", "14"},
		"process bound": {503, "5", "process-bound", "", "process_bound", "14"},
		"dies":          {502, "", "no-answer", "", "upstream", "14"},
		"late":          {504, "", "late", "", "upstream", "14"},
		"total":         {504, "", "late", "", "upstream", "14"},
		"idle":          {504, "", "late", "", "upstream", "14"},
	}
	for name, start := range causes(t) {
		w := want[name]
		t.Run(name, func(t *testing.T) {
			p := start()
			for _, protocols := range []func(*http.Protocols){http1, h2c} {
				c := p.client(protocols)
				resp, body := do(t, c, p.request(http.MethodGet, "/", nil))
				if resp.StatusCode != w.status || resp.Header.Get("Retry-After") != w.retryAfter {
					t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
				}
				got := problemIn(t, resp, body)
				if got.Type != "urn:dormouse:problem:"+w.kind || got.Reason != w.reason || got.Message != "" {
					t.Errorf("%+v", got)
				}
				if strings.Contains(body, "127.0.0.1") || strings.Contains(body, "1234") {
					t.Errorf("%s tells too much", body)
				}
				if held := name == "timeout"; held != (resp.Header.Get("Server-Timing") != "") {
					t.Errorf("Server-Timing %q", resp.Header.Get("Server-Timing"))
				}

				r := p.request(http.MethodPost, "/", nil)
				r.Header.Set("Content-Type", "application/grpc+proto")
				resp, body = do(t, c, r)
				if resp.StatusCode != 200 || body != "" || resp.Header.Get("Grpc-Status") != w.grpc ||
					resp.Header.Get("Content-Type") != "application/grpc+proto" {
					t.Errorf("gRPC: %s %v %q", resp.Status, resp.Header, body)
				}
			}
			if n := p.metric("dormouse_refused_requests_total", "reason", w.refusal); n != 4 {
				t.Errorf("%v refusals counted", n)
			}
		})
	}
}

func TestOnALaptopTheMessageOfAFailureIsTold(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.Reveal = true })
	p.gates.Publish(key, &scaling.View{Failure: &scaling.Failure{Reason: scaling.ReasonNotFound, Message: "no such file: shop"}})
	resp, body := do(t, p.client(http1), p.request(http.MethodGet, "/", nil))
	if got := problemIn(t, resp, body); got.Message != "no such file: shop" {
		t.Errorf("%+v", got)
	}
}

func TestATimeoutInMidAnswerBreaksItOff(t *testing.T) {
	for name, set := range map[string]func(*scaling.Timeouts){
		"idle":  func(t *scaling.Timeouts) { t.Idle = 100 * time.Millisecond },
		"total": func(t *scaling.Timeouts) { t.Total = 100 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, insecure, func(_ *activator.Config, s *scaling.Service) { set(&s.Timeouts) })
			p.each(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}, func(t *testing.T, c *http.Client) {
				resp, err := c.Do(p.request(http.MethodGet, "/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if _, err := io.ReadAll(resp.Body); err == nil {
					t.Error("a clean end")
				}
			})
		})
	}
}

func TestAnyByteInEitherDirectionPutsTheIdleTimeoutOff(t *testing.T) {
	p := newProxy(t, insecure, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.Idle = time.Second })
	for kind, e := range p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for range 8 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-time.After(150 * time.Millisecond)
		}
	}) {
		p.publish(e)
		for name, c := range map[string]*http.Client{"http1": p.client(http1), "h2c": p.client(h2c)} {
			t.Run(name+"→"+kind, func(t *testing.T) {
				t.Parallel()
				pr, pw := io.Pipe()
				go func() {
					for range 8 {
						_, _ = io.WriteString(pw, "x")
						<-time.After(150 * time.Millisecond)
					}
					_ = pw.Close()
				}()
				if resp, body := do(t, c, p.request(http.MethodPost, "/", pr)); body != "xxxxxxxx" {
					t.Errorf("%s %q", resp.Status, body)
				}
			})
		}
	}
}

func TestAClientThatDoesNotReadIsBrokenOffByTheIdleTimeout(t *testing.T) {
	p := newProxy(t, insecure, func(_ *activator.Config, s *scaling.Service) { s.Timeouts.Idle = 200 * time.Millisecond })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, neverEnding('x'), 1<<30)
	}))
	defer s.Close()
	p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
	carried := func() bool { return p.gates.Activity(key).Carried }
	p.raw(t, "GET / HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	eventually(t, "the first request to be broken off", carried)
	resp, err := p.client(h2c).Do(p.request(http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.awaitIdle()
}
