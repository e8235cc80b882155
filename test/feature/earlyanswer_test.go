package feature

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const uploadSize = 10 << 20

// uploaders are clients of HTTP/1.1 that send a large body and read the answer, in different orders.
func uploaders() map[string]func(c net.Conn, head string) (*http.Response, string, error) {
	body := strings.Repeat("0123456789abcdef", uploadSize/16)
	read := func(c net.Conn) (*http.Response, string, error) {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return nil, "", err
		}
		text, err := io.ReadAll(resp.Body)
		return resp, string(text), err
	}
	return map[string]func(net.Conn, string) (*http.Response, string, error){
		"one that first writes all it can": func(c net.Conn, head string) (*http.Response, string, error) {
			_, _ = io.WriteString(c, head+body) // it may be told that nobody reads this
			return read(c)
		},
		"one that reads meanwhile": func(c net.Conn, head string) (*http.Response, string, error) {
			go func() { _, _ = io.WriteString(c, head+body) }()
			return read(c)
		},
		"one that writes little by little": func(c net.Conn, head string) (*http.Response, string, error) {
			go func() {
				_, err := io.WriteString(c, head)
				for i := 0; err == nil && i < len(body); i += 4 << 10 {
					_, err = io.WriteString(c, body[i:i+4<<10])
					time.Sleep(100 * time.Microsecond) //nolint:forbidigo // a slow client
				}
			}()
			return read(c)
		},
	}
}

func TestAnErrorForALargeUploadThatWasNotReadIsReadWhole(t *testing.T) {
	t.Parallel()
	full, _ := gated(t, "full", nil, "hold: {maxRequests: 1}")
	late, _ := gated(t, "late", nil, "hold: {timeout: 100ms}")
	ca := newAuthority(t)
	d := startTLS(t, ca, t.TempDir(), []string{full, late, command(t, "broken", []string{"false"}), app(t, "web", nil)})
	send(newClient(t), d.request(t.Context(), "GET", "full", "/", nil)) // held until the test's end
	d.awaitHeld("full", 1)
	d.get("web", "/")

	dial := map[string]func() net.Conn{
		"http": d.dial,
		"https": func() net.Conn {
			plain, err := net.Dial("tcp", d.https)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = plain.Close() })
			_ = plain.SetDeadline(time.Now().Add(patience))
			return tls.Client(plain, &tls.Config{RootCAs: ca.pool(), ServerName: "dormouse.test"})
		},
	}
	judged := make(map[string]chan error)
	for service, c := range map[string]struct {
		path   string
		status int
	}{"full": {"/", 503}, "late": {"/", 504}, "nobody": {"/", 404}, "broken": {"/", 503}, "web": {"/early-413?then=reset", 413}} {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s.default\r\nContent-Length: %d\r\n\r\n", c.path, service, uploadSize)
		for client, upload := range uploaders() {
			for scheme := range dial {
				conn, verdict := dial[scheme](), make(chan error, 1)
				judged[fmt.Sprintf("%s (%d), to %s over %s", service, c.status, client, scheme)] = verdict
				go func() {
					resp, text, err := upload(conn, head)
					if err == nil && (resp.StatusCode != c.status || !resp.Close || resp.ContentLength != int64(len(text))) {
						err = fmt.Errorf("%s with %d of %d bytes, connection to be closed: %t", resp.Status, len(text), resp.ContentLength, resp.Close)
					}
					verdict <- err
				}()
			}
		}
	}
	for name, verdict := range judged {
		if err := receive(t, "what became of "+name, verdict); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAConnectionWhoseUploadWasNotReadEndsWithoutAReset(t *testing.T) {
	t.Parallel()
	d := start(t, []string{command(t, "broken", []string{"/no/such/program"}), app(t, "web", nil)})
	d.get("web", "/")
	for _, target := range []string{"nobody.default /", "broken.default /", "web.default /early-413"} {
		host, path, _ := strings.Cut(target, " ")
		w := d.wire()
		w.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", path, host, 200<<10))
		w.send(strings.Repeat("x", 100<<10)) // the other half never comes
		if text, err := io.ReadAll(w.r); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 4") && !strings.HasPrefix(string(text), "HTTP/1.1 503") {
			t.Errorf("%s: %.100q, %v", target, text, err)
		}
	}
}

func TestAnErrorForALargeUploadOverHTTP2IsReadWhole(t *testing.T) {
	t.Parallel()
	full, _ := gated(t, "full", nil, "hold: {maxRequests: 1}")
	d := start(t, []string{full, app(t, "web", nil)})
	send(newClient(t), d.request(t.Context(), "GET", "full", "/", nil)) // held until the test's end
	d.awaitHeld("full", 1)
	d.get("web", "/")

	c, dials := h2cClient(t)
	for range 3 {
		for service, x := range map[string]struct {
			path   string
			status int
		}{"full": {"/", 503}, "nobody": {"/", 404}, "web": {"/early-413?then=reset", 413}} {
			r := want(t, send(c, d.request(t.Context(), "POST", service, x.path, strings.NewReader(strings.Repeat("x", uploadSize)))), x.status)
			if r.body == "" {
				t.Errorf("%s: no body", service)
			}
		}
		want(t, send(c, d.request(t.Context(), "POST", "web", "/upload", strings.NewReader("small"))), 200)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections were needed", n)
	}
}

func TestAnAnswerBeginsBeforeItsRequestHasEnded(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil)})
	for name, c := range clients(t) {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			body, upload := io.Pipe()
			defer upload.Close()
			r := d.request(t.Context(), "POST", "web", "/echo", body)
			r.Header.Set("Content-Type", "text/plain")
			resp, err := c.Do(r) // returns when the answer has begun
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			for _, part := range []string{"one", "two", string(letters(100 << 10)), "three"} {
				go func() { _, _ = io.WriteString(upload, part) }()
				got := make([]byte, len(part))
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != part {
					t.Fatalf("%v after %.100q", err, got)
				}
			}
			_ = upload.Close()
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
				t.Errorf("then came %q, %v", rest, err)
			}
		})
	}
}

func TestAnAnswerThatIsWholeBeforeTheUploadEndsIsNotKeptBack(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	w := d.wire()
	w.send("POST / HTTP/1.1\r\nHost: shop.default\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	up := accept(t, l)
	if head := up.head(); !strings.HasPrefix(head, "POST / ") || !strings.Contains(head, "shop.default") {
		t.Fatalf("somebody else's request came first: %q", head)
	}
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	resp, body := w.response("POST")
	if resp.StatusCode != 200 || body != "ok" || !resp.Close {
		t.Errorf("%s %q, connection to be closed: %t", resp.Status, body, resp.Close)
	}
	w.ended()
	rest, err := io.ReadAll(up.r)
	if isTimeout(err) || strings.Contains(string(rest), "0\r\n\r\n") {
		t.Errorf("the application got %q, %v: it may take the upload for complete", rest, err)
	}
}
