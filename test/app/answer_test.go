package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestEveryAnswerNamesTheApp(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for _, path := range []string{"/", "/healthz", "/status/500", "/echo", "/bytes?n=x"} {
			if resp, _ := get(t, c, app.URL(path)); resp.Header.Get("X-App-Name") != "shop" {
				t.Errorf("%s: named %q", path, resp.Header.Get("X-App-Name"))
			}
		}
		resp, body := get(t, c, app.URL("/"))
		if want := fmt.Sprintf("This is shop, process %d, by %s.\n", app.Pid(), resp.Proto); body != want {
			t.Errorf("the page is %q", body)
		}
	}, "--name=shop")
}

func TestProtocolsAreThoseAskedFor(t *testing.T) {
	t.Parallel()
	for protocol, want := range map[string]string{"auto": "http1 h2c", "http1": "http1", "h2c": "h2c"} {
		app := apptest.Start(t, "--protocol="+protocol)
		var got []string
		for name, c := range map[string]*http.Client{"http1": http1(t), "h2c": h2c(t)} {
			if resp, err := c.Do(request(t, "GET", app.URL("/"), nil)); err == nil {
				resp.Body.Close()
				got = append(got, name)
			}
		}
		slices.SortFunc(got, func(a, b string) int { return strings.Compare(b, a) })
		if strings.Join(got, " ") != want {
			t.Errorf("--protocol=%s serves %v", protocol, got)
		}
	}
}

func TestStatusIsThePaths(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for code, want := range map[int]string{
			200: "200 OK\n", 204: "", 304: "", 404: "404 Not Found\n", 503: "503 Service Unavailable\n", 599: "599 \n",
		} {
			resp, body := get(t, c, app.URL(fmt.Sprint("/status/", code)))
			if resp.StatusCode != code || body != want {
				t.Errorf("%d: status %d, body %q", code, resp.StatusCode, body)
			}
		}
	})
}

func TestDelaySendsHeadersThenBody(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		start := time.Now()
		resp, err := c.Do(request(t, "GET", app.URL("/delay?headers=30ms&body=1h"), nil))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if took := time.Since(start); took < 30*time.Millisecond {
			t.Errorf("headers came after %v", took)
		}
		if _, body := get(t, c, app.URL("/delay?body=30ms")); body != "ok\n" {
			t.Errorf("body %q", body)
		}
	})
}

func TestTrailersGoBothWays(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		req := request(t, "POST", app.URL("/trailers"), io.MultiReader(strings.NewReader("abc")))
		req.Trailer = http.Header{"X-Sent": {"yes"}}
		resp, body := do(t, c, req)
		if got := decode[http.Header](t, body); got.Get("X-Sent") != "yes" {
			t.Errorf("the app got %v", got)
		}
		const sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
		if got := resp.Trailer; got.Get("X-Body-Sha256") != sha || got.Get("X-Body-Bytes") != "3" {
			t.Errorf("the client got %v", got)
		}
	})
}

func TestEarlyHintsComeBeforeTheAnswer(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		ctx, leave := context.WithCancel(t.Context())
		var links []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code == 103 {
				links = header["Link"]
				leave()
			}
			return nil
		}}
		req := request(t, "GET", app.URL("/early-hints?delay=1h"), nil).WithContext(httptrace.WithClientTrace(ctx, trace))
		if _, err := c.Do(req); err == nil || len(links) != 2 {
			t.Errorf("links %q, %v", links, err)
		}
		if resp, body := get(t, c, app.URL("/early-hints")); resp.StatusCode != 200 || body != "ok\n" {
			t.Errorf("status %d, body %q", resp.StatusCode, body)
		}
	})
}

// received is what /headers answers.
type received struct {
	Method, RequestURI, Host, Proto string
	Headers, Trailers               http.Header
	Lines, TransferEncoding         []string
	ContentLength                   int64
}

func TestHeadersTellsTheRequestByteForByte(t *testing.T) {
	t.Parallel()
	c := dial(t, apptest.Start(t))
	in := bufio.NewReader(c)
	for _, uri := range []string{"/headers", "/headers/../%2e%2E//a%2Fb?q=%zz", "/any/../path", "*", "http://other/headers"} {
		lines := []string{"hOsT: Shop.Example", "X-b: 2", "x-A:  1", "Content-Length: 4"}
		if _, err := fmt.Fprintf(c, "OPTIONS %s HTTP/1.1\r\n%s\r\n\r\nbody", uri, strings.Join(lines, "\r\n")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := decode[received](t, string(body))
		if got.Method != http.MethodOptions || got.RequestURI != uri || got.ContentLength != 4 || got.Headers.Get("X-B") != "2" {
			t.Errorf("%s: %+v", uri, got)
		}
		if !slices.Equal(got.Lines, lines) {
			t.Errorf("%s: lines %q", uri, got.Lines)
		}
	}
}

func TestHeadersTellsEncodingAndTrailers(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		req := request(t, "POST", app.URL("/headers"), io.MultiReader(strings.NewReader(letters(100_000))))
		req.Trailer = http.Header{"X-Sent": {"yes"}}
		resp, body := do(t, c, req)
		got := decode[received](t, body)
		if got.Proto != resp.Proto || got.Host != app.Addr || got.ContentLength != -1 || got.Trailers.Get("X-Sent") != "yes" {
			t.Errorf("got %+v", got)
		}
		if got.Proto == "HTTP/1.1" && !slices.Equal(got.TransferEncoding, []string{"chunked"}) {
			t.Errorf("encoding %q", got.TransferEncoding)
		}
	})
}

func TestHeadersTellsLargeHeads(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	req := request(t, "GET", app.URL("/headers"), nil)
	req.Header.Set("X-Large", letters(10_000))
	_, body := do(t, http1(t), req)
	if got := decode[received](t, body); !slices.Contains(got.Lines, "X-Large: "+letters(10_000)) {
		t.Errorf("lines %q", got.Lines)
	}
}
