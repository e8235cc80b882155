package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// seen is a request as an endpoint got it.
type seen struct {
	Method, URI, Host, Proto string
	Header                   http.Header
	Length                   int64
}

func show(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Proto, r.Header, r.ContentLength})
}

// sent returns what an endpoint gets of a request on a connection of HTTP/1.1.
func (p *proxy) sent(t *testing.T, text string) (s seen) {
	t.Helper()
	_, r := p.raw(t, text)
	resp := answer(t, r, "GET")
	body, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatal(resp.Status, string(body))
	}
	return s
}

func TestHopByHopFieldsAreDropped(t *testing.T) {
	p := newProxy(t)
	p.serve(show)
	s := p.sent(t, "GET / HTTP/1.1\r\nHost: shop.web\r\nConnection: keep-alive, X-Mine, host, X-Forwarded-For, content-length\r\n"+
		"X-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nProxy-Authorization: Basic x\r\nTE: trailers, deflate\r\n"+
		"Upgrade: h2c\r\nHTTP2-Settings: x\r\nX-Forwarded-For: 10.0.0.1\r\nX-Kept: 1\r\nContent-Length: 3\r\n\r\nabc")
	for _, name := range []string{
		"Connection", "X-Mine", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Upgrade", "Http2-Settings",
		"User-Agent", "Accept-Encoding",
	} {
		if v, ok := s.Header[name]; ok {
			t.Errorf("%s: %v was sent on", name, v)
		}
	}
	for name, want := range map[string]string{
		"Te": "trailers", "X-Kept": "1", "X-Forwarded-For": "10.0.0.1, 127.0.0.1", "X-Forwarded-Proto": "http",
		"X-Forwarded-Host": "shop.web", "Dormouse-Passed": "web/shop",
	} {
		if got := strings.Join(s.Header[name], "|"); got != want {
			t.Errorf("%s: %q instead of %q", name, got, want)
		}
	}
	if s.Host != "shop.web" || s.Length != 3 {
		t.Errorf("host %q, length %d", s.Host, s.Length)
	}
}

func TestForwardedFieldsAreBelievedOfTrustedProxiesOnly(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: shop.web\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: example.com\r\n" +
		"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\r\n"
	for _, trusted := range []bool{false, true} {
		p := newProxy(t, func(c *activator.Config, _ *scaling.Service) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			if trusted {
				c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix("127.0.0.0/8"))
			}
		})
		p.serve(show)
		h := p.sent(t, request).Header
		got := fmt.Sprint(h["X-Forwarded-Proto"], h["X-Forwarded-Host"], h["X-Forwarded-For"])
		want := "[http] [shop.web] [10.0.0.1, 10.0.0.2, 127.0.0.1]"
		if trusted {
			want = "[https] [example.com] [10.0.0.1, 10.0.0.2, 127.0.0.1]"
		}
		if got != want {
			t.Errorf("trusted %t: %s", trusted, got)
		}
	}
}

func TestTargetsPassByteForByte(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(show) {
		p.publish(e)
		for sent, want := range map[string]string{
			"/": "/", "/?": "/?", "/a%2fb/../c/./%2e%2E/": "/a%2fb/../c/./%2e%2E/", "//x//y": "//x//y", "/x;y=z?a=b;c&&=%zz": "",
			"/|\"<>^`{}": "", "/a?b?c=/../": "/a?b?c=/../", "http://shop.web": "/", "http://shop.web?q": "/?q",
			"http://shop.web/a%2Fb?c": "/a%2Fb?c", "/é": "", "/a:b@c": "", "/a#b": "",
		} {
			if want == "" {
				want = sent
			}
			if s := p.sent(t, "GET "+sent+" HTTP/1.1\r\nHost: shop.web\r\n\r\n"); s.URI != want {
				t.Errorf("%s: sent %s, got %s", kind, sent, s.URI)
			}
		}
		if s := p.sent(t, "OPTIONS * HTTP/1.1\r\nHost: shop.web\r\n\r\n"); s.URI != "*" || s.Method != http.MethodOptions {
			t.Errorf("%s: %+v", kind, s)
		}
		if s := p.sent(t, "TRACE /t HTTP/1.1\r\nHost: SHOP.web.:80\r\n\r\n"); s.Method != http.MethodTrace || s.Host != "SHOP.web.:80" {
			t.Errorf("%s: %+v", kind, s)
		}
	}
}

func TestConnectIsRefused(t *testing.T) {
	p := newProxy(t)
	p.serve(show)
	_, r := p.raw(t, "CONNECT shop.web:80 HTTP/1.1\r\nHost: shop.web\r\n\r\n")
	if resp := answer(t, r, "GET"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error(resp.Status)
	}
}

func TestARequestThatWentThroughTheSameServiceIsALoop(t *testing.T) {
	p := newProxy(t)
	// The endpoint is the proxy itself.
	p.publish(p.endpoint(p.addr, scaling.ProtocolHTTP1))
	resp, body := do(t, p.client(http1), p.request(http.MethodGet, "/", nil))
	if resp.StatusCode != http.StatusLoopDetected {
		t.Errorf("%s %s", resp.Status, body)
	}
	p.serve(show)
	s := p.sent(t, "GET / HTTP/1.1\r\nHost: shop.web\r\nDormouse-Passed: web/other, api/shop\r\n\r\n")
	if got := s.Header["Dormouse-Passed"]; len(got) != 1 || got[0] != "web/other, api/shop, web/shop" {
		t.Errorf("%q", got)
	}
}

func TestAnswersPassAsTheyAre(t *testing.T) {
	p := newProxy(t, insecure)
	p.each(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"] = nil
		h["Date"] = []string{"Thu, 01 Jan 1970 00:00:00 GMT"}
		h["X-Many"] = []string{"1", "2"}
		if r.ProtoMajor == 1 {
			h["Connection"] = []string{"X-Private"}
			h["X-Private"] = []string{"1"}
		}
		h["Keep-Alive"] = []string{"timeout=5"}
		switch r.URL.Path {
		case "/head":
			h.Set("Content-Length", "12345")
		case "/304":
			h.Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/599":
			w.WriteHeader(599)
		default:
			_, _ = io.WriteString(w, "<html>")
		}
	}, func(t *testing.T, c *http.Client) {
		resp, body := do(t, c, p.request(http.MethodGet, "/", nil))
		if body != "<html>" || resp.Header.Get("Content-Type") != "" || len(resp.Header["X-Many"]) != 2 ||
			resp.Header.Get("Date") != "Thu, 01 Jan 1970 00:00:00 GMT" || resp.Header.Get("Keep-Alive")+resp.Header.Get("X-Private") != "" {
			t.Errorf("%q %v", body, resp.Header)
		}
		if resp, _ := do(t, c, p.request(http.MethodHead, "/head", nil)); resp.ContentLength != 12345 {
			t.Errorf("HEAD: %v", resp.Header)
		}
		if resp, _ := do(t, c, p.request(http.MethodGet, "/304", nil)); resp.StatusCode != 304 || resp.Header.Get("Etag") == "" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		if resp, _ := do(t, c, p.request(http.MethodGet, "/599", nil)); resp.StatusCode != 599 {
			t.Error(resp.Status)
		}
	})
}

func TestClientsOfHTTP10AreServed(t *testing.T) {
	p := newProxy(t)
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush() // no length
		_, _ = io.WriteString(w, r.Proto+r.Host)
	})
	c, r := p.raw(t, "GET / HTTP/1.0\r\nHost: shop.web\r\nConnection: keep-alive\r\n\r\n")
	resp := answer(t, r, "GET")
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "HTTP/1.1shop.web" || len(resp.TransferEncoding) > 0 {
		t.Errorf("%q %v %v", body, resp.Header, err)
	}
	_ = c.Close()
}

func TestASpaceInATargetOfHTTP2IsRefused(t *testing.T) {
	p := newProxy(t)
	p.serve(show)
	r := p.request(http.MethodGet, "/", nil)
	r.URL.Opaque = "/a HTTP/1.1"
	resp, err := p.client(h2c).Do(r)
	if err != nil {
		return // refused by net/http
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Error(resp.Status)
	}
}
