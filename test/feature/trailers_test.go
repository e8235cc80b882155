package feature

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestTrailersPassBothWays(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1", "--listen-delay=50ms"}),
		app(t, "two", []string{"--protocol=h2c", "--listen-delay=50ms"}, "endpoint: {protocol: H2C}"),
	})
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				// A body of unknown length, at whose end the trailer's values are known.
				body := io.MultiReader(strings.NewReader("hello"))
				r := d.request(t.Context(), http.MethodPost, service, "/trailers", io.NopCloser(body))
				r.Trailer = http.Header{"X-Checksum": nil, "X-Other": nil}
				r.Body = &atEOF{Reader: body, do: func() {
					r.Trailer.Set("X-Checksum", "abc")
					r.Trailer["X-Other"] = []string{"1", "2"}
				}}
				resp, text := d.do(client, r)
				var atEndpoint http.Header
				if err := json.Unmarshal([]byte(text), &atEndpoint); err != nil {
					t.Fatalf("%v in %q", err, text)
				}
				if atEndpoint.Get("X-Checksum") != "abc" || !slices.Equal(atEndpoint["X-Other"], []string{"1", "2"}) {
					t.Errorf("the request's trailers at the endpoint: %v", atEndpoint)
				}
				if resp.Trailer.Get("X-Body-Sha256") != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
					t.Errorf("the answer's announced trailer: %v", resp.Trailer)
				}
				if resp.Trailer.Get("X-Body-Bytes") != "5" {
					t.Errorf("the answer's trailer that was not announced: %v", resp.Trailer)
				}
				if resp.Header.Get("X-Body-Sha256")+resp.Header.Get("X-Body-Bytes") != "" {
					t.Errorf("trailers are in the header: %v", resp.Header)
				}
			})
		}
	}
}

// atEOF does something when its Reader is at its end.
type atEOF struct {
	io.Reader
	do func()
}

func (r *atEOF) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		r.do()
	}
	return n, err
}

func (*atEOF) Close() error { return nil }

// By HTTP/2, net/http passes only trailers of requests that were announced; those of answers need not be, see above.
func TestTrailersOfRequestsNeedNoAnnouncement(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--protocol=http1"})})
	w := d.wire()
	w.send("POST /trailers HTTP/1.1\r\nHost: shop.default\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: yes\r\n\r\n")
	if _, body := w.response("POST"); !strings.Contains(body, `"X-Late"`) {
		t.Errorf("endpoint saw the trailers %s", body)
	}
}

func TestTrailersWithoutABodyStillCome(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	client := d.wire()
	client.send("GET / HTTP/1.1\r\nHost: shop.default\r\nTE: trailers\r\n\r\n")
	endpoint := accept(t, l)
	endpoint.head()
	endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n0\r\nX-End: 1\r\n\r\n")
	if resp, body := client.response("GET"); resp.Trailer.Get("X-End") != "1" || body != "" {
		t.Errorf("%v, body %q, trailers %v", resp.Header, body, resp.Trailer)
	}
}

// RFC 9110 section 6.5.1.
func TestTrailersCannotFrameOrRoute(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "one", []string{"--protocol=http1"}), sham(t, "sham")})
	w := d.wire()
	w.send("POST /headers HTTP/1.1\r\nHost: one.default\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: other\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nX-Fine: 1\r\n\r\n")
	resp, body := w.response("POST")
	if resp.StatusCode == http.StatusOK { // or it is refused
		for name := range parseSeen(t, body).Trailers {
			if name != "X-Fine" {
				t.Errorf("endpoint saw the trailer %s", name)
			}
		}
	} else if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%s %s", resp.Status, body)
	}

	l := d.listen("sham")
	client := d.wire()
	client.send("GET / HTTP/1.1\r\nHost: sham.default\r\n\r\n")
	endpoint := accept(t, l)
	endpoint.head()
	endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 5\r\nX-Fine: 1\r\n\r\n")
	resp, body = client.response("GET")
	if body != "ok" || resp.Trailer.Get("X-Fine") != "1" || resp.Trailer.Get("Content-Length") != "" {
		t.Errorf("%s %q %v", resp.Status, body, resp.Trailer)
	}
}
