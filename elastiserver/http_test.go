package elastiserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dormouse-dev/dormouse/scaling"
)

// online is a world that is ready, and its control port on a real socket.
func online(t *testing.T, services ...*scaling.Service) (*world, *httptest.Server) {
	t.Helper()
	w := newWorld(t, services...)
	w.ready(t)
	return w, serve(t, w.Handler())
}

// serve serves a handler on a real socket until the test ends.
func serve(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// answer is what came back from a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request and reads the whole answer.
func ask(t *testing.T, server *httptest.Server, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(content)}
}

// decode reads the answer's body into v, after a look at what every answer promises.
func (a answer) decode(t *testing.T, status int, v any) {
	t.Helper()
	want := "application/json"
	if status >= 400 {
		want = "application/problem+json"
	}
	if got := a.header.Get("Content-Type"); a.status != status || got != want {
		t.Fatalf("got status %d and type %s, want %d and %s; the body is %s", a.status, got, status, want, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	for _, secret := range []string{errHiccup.Error(), "/etc/secret"} {
		if strings.Contains(a.body, secret) {
			t.Errorf("the answer tells %q: %s", secret, a.body)
		}
	}
}

// problem checks that the answer is a problem document, and returns it.
func (a answer) problem(t *testing.T, status int) problem {
	t.Helper()
	var p problem
	a.decode(t, status, &p)
	if p.Status != status || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("the problem document is not whole: %s", a.body)
	}
	return p
}

func TestAPathThatDoesNotExistIsAProblem(t *testing.T) {
	_, server := online(t, serviceOf("web", "shop"))
	for _, path := range []string{
		"/", "/informer", "/informer/incoming-request/", "/api/v1", "/api/v1/services/", "/api/v1/services/web",
		"/api/v1/services/web/shop/", "/api/v1/services/web/shop/restart", "/api/v2/services", "/debug/pprof/",
	} {
		t.Run(path, func(t *testing.T) {
			ask(t, server, "GET", path, "").problem(t, 404)
		})
	}
}

func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	_, server := online(t, serviceOf("web", "shop"))
	for path, allow := range map[string]string{
		"/informer/incoming-request":      "POST",
		"/api/v1/services":                "GET, HEAD",
		"/api/v1/services/web/shop":       "GET, HEAD",
		"/api/v1/services/web/shop/wake":  "POST",
		"/api/v1/services/web/shop/sleep": "POST",
		"/api/v1/services/web/shop/pin":   "POST",
		"/api/v1/events":                  "GET",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"} {
			if strings.Contains(allow, method) {
				continue
			}
			a := ask(t, server, method, path, "")
			if got := a.header.Get("Allow"); a.status != 405 || got != allow {
				t.Errorf("%s %s: got status %d and Allow %q, want 405 and %q", method, path, a.status, got, allow)
			}
			if method != "HEAD" {
				a.problem(t, 405)
			}
		}
	}
}

func TestAPanicIsAnsweredWith500(t *testing.T) {
	log, logged := observer.New(zap.ErrorLevel)
	w := newWorld(t)
	w.logger = zap.New(log)
	server := serve(t, w.answering(func(http.ResponseWriter, *http.Request) (any, error) { panic("a secret") }, "GET"))
	a := ask(t, server, "GET", "/", "")
	a.problem(t, 500)
	if strings.Contains(a.body, "secret") {
		t.Errorf("the answer tells the cause: %s", a.body)
	}
	if logged.FilterMessage("an endpoint panicked").Len() != 1 {
		t.Error("the panic was not logged")
	}
}

// failures are errors of scaling, and what a client is told of them.
func failures() map[string]struct {
	err    error
	reason scaling.Reason
} {
	return map[string]struct {
		err    error
		reason scaling.Reason
	}{
		"a hiccup":          {errHiccup, scaling.ReasonScaleFailed},
		"a final failure":   {&scaling.Failure{Reason: scaling.ReasonQuota, Message: "/etc/secret"}, scaling.ReasonQuota},
		"a deadline":        {context.DeadlineExceeded, ""},
		"several in one":    {errors.Join(errHiccup, &scaling.Failure{Reason: scaling.ReasonConfig}), scaling.ReasonConfig},
		"a stopped handler": {scaling.ErrStopped, ""},
	}
}

func TestAFailedScaleIs503AndKeepsItsSecrets(t *testing.T) {
	for name, failed := range failures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the back-off takes its time
			w, server := online(t, serviceOf("web", "shop"))
			w.fake.Intercept(func(context.Context, *scaling.Service, int32) error { return failed.err }, nil)
			for path, body := range map[string]string{
				"/informer/incoming-request":           `{"count":1,"svc":"shop","namespace":"web"}`,
				"/api/v1/services/web/shop/wake":       "",
				"/api/v1/services/web/shop/pin?for=1h": "",
			} {
				if got := ask(t, server, "POST", path, body).problem(t, 503).Reason; got != failed.reason {
					t.Errorf("%s: the reason is %q, want %q", path, got, failed.reason)
				}
			}
		})
	}
}
