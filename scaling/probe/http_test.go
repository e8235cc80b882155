package probe

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func okHandler(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }

// serveHTTP returns the address of a server that ends with the test.
func serveHTTP(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestHTTPSucceedsFrom200To399(t *testing.T) {
	var status atomic.Int32
	address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
	for code, want := range map[int32]bool{200: true, 204: true, 304: true, 399: true, 400: false, 404: false, 500: false, 503: false} {
		status.Store(code)
		err := (&Check{Kind: HTTP, Address: address, Path: "/healthz"}).Attempt(t.Context())
		if got := err == nil; got != want {
			t.Errorf("status %d: got %v, want success %t", code, err, want)
		}
	}
}

func TestHTTPSendsItsPathAndHeaders(t *testing.T) {
	got := make(chan *http.Request, 1)
	address := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })

	if err := (&Check{Kind: HTTP, Address: address}).Attempt(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain := <-got
	if plain.RequestURI != "/" || plain.Host != address || plain.UserAgent() != "dormouse-probe" || plain.Header.Get("Accept") != "*/*" {
		t.Errorf("defaults: got %s, Host %s, header %v", plain.RequestURI, plain.Host, plain.Header)
	}

	check := &Check{
		Kind: HTTP, Address: address, Path: "/he%2Falth?deep=1",
		Header: http.Header{"Host": {"shop.example.com"}, "X-Probe": {"a", "b"}, "User-Agent": {"kube-probe/1.37"}},
	}
	if err := check.Attempt(t.Context()); err != nil {
		t.Fatal(err)
	}
	own := <-got
	if own.RequestURI != "/he%2Falth?deep=1" || own.Host != "shop.example.com" ||
		strings.Join(own.Header["X-Probe"], ",") != "a,b" || own.UserAgent() != "kube-probe/1.37" {
		t.Errorf("own: got %s, Host %s, header %v", own.RequestURI, own.Host, own.Header)
	}
}

func TestHTTPFollowsRedirectsWithinItsHostOnly(t *testing.T) {
	var status atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/end", http.StatusFound) })
	mux.HandleFunc("/end", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		// Nothing but this test's machine would be asked even if it were followed.
		http.Redirect(w, r, "http://localhost.invalid/", http.StatusFound)
	})
	address := serveHTTP(t, mux.ServeHTTP)

	for _, c := range []struct {
		path   string
		status int32
		want   bool
	}{
		{"/here", 200, true},
		{"/here", 500, false},
		{"/loop", 200, false},
		{"/elsewhere", 200, true},
	} {
		status.Store(c.status)
		err := (&Check{Kind: HTTP, Address: address, Path: c.path}).Attempt(t.Context())
		if got := err == nil; got != c.want {
			t.Errorf("%s ending in %d: got %v, want success %t", c.path, c.status, err, c.want)
		}
	}
}

func TestHTTPAcceptsACertificateNobodySigned(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(okHandler))
	defer server.Close()
	address := server.Listener.Addr().String()
	if err := (&Check{Kind: HTTP, Scheme: "https", Address: address}).Attempt(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHTTPReadsABigAnswerInPart(t *testing.T) {
	address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 64<<10)
		for range 1024 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if err := (&Check{Kind: HTTP, Address: address}).Attempt(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHTTPFailsWhereTheBodyHangs(t *testing.T) {
	address := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	if err := (&Check{Kind: HTTP, Address: address, Timeout: 50 * time.Millisecond}).Attempt(t.Context()); err == nil {
		t.Error("an answer that never ended was a success")
	}
}

func TestAPathThatIsNoURLIsAFailure(t *testing.T) {
	address := serveHTTP(t, okHandler)
	if err := (&Check{Kind: HTTP, Address: address, Path: "/%zz"}).Attempt(t.Context()); err == nil {
		t.Error("a path that cannot be sent was a success")
	}
}
