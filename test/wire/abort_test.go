package wire

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// rawEndpoint starts an endpoint that is given each connection, and publishes it.
func (p *proxy) rawEndpoint(handle func(c net.Conn)) scaling.Endpoint {
	l := listen(p.t)
	p.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	e := p.endpoint(l.Addr().String(), scaling.ProtocolHTTP1)
	p.publish(e)
	return e
}

// readRequest reads the header of a request from c, and no more than that of its body.
func readRequest(c net.Conn) string {
	var b strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			return b.String()
		}
		b.Write(one)
	}
	return b.String()
}

func TestAnEndpointThatDiesInMidBodyIsNotTakenForACompleteAnswer(t *testing.T) {
	headers := map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nthe begin",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nthe begin\r\n",
		"chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n900\r\nthe begin",
		"close":   "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe begin",
	}
	for delimited, header := range headers {
		for _, end := range []string{"fin", "reset"} {
			if delimited == "close" && end == "fin" {
				continue // cannot be told from a complete answer
			}
			p := newProxy(t)
			p.rawEndpoint(func(c net.Conn) {
				readRequest(c)
				_, _ = io.WriteString(c, header)
				<-time.After(20 * time.Millisecond)
				if end == "reset" {
					_ = tcpOf(c).SetLinger(0)
				}
				_ = c.Close()
			})
			for way, dial := range p.dials(t) {
				for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
					t.Run(fmt.Sprint(delimited, "/", end, "/", way, "/", version), func(t *testing.T) {
						c := dial()
						_ = c.SetDeadline(time.Now().Add(10 * time.Second))
						_, _ = io.WriteString(c, "GET / "+version+"\r\nHost: shop.web\r\n\r\n")
						all, err := io.ReadAll(c)
						if err == nil {
							t.Errorf("a clean end after %q", all)
						}
						if strings.Contains(string(all), "\r\n0\r\n") {
							t.Errorf("a last chunk in %q", all)
						}
					})
				}
			}
			t.Run(fmt.Sprint(delimited, "/", end, "/h2c"), func(t *testing.T) {
				resp, err := p.client(h2c).Do(p.request(http.MethodGet, "/", nil))
				if err != nil {
					return
				}
				defer resp.Body.Close()
				if all, err := io.ReadAll(resp.Body); err == nil {
					t.Errorf("a clean end after %q", all)
				}
			})
			p.awaitIdle()
		}
	}
}

func TestAClientsTruncatedUploadIsNotCompletedForTheEndpoint(t *testing.T) {
	for kind := range map[string]bool{"HTTP1": true, "H2C": true, "HTTPS1": true, "HTTPS2": true} {
		t.Run(kind, func(t *testing.T) {
			p := newProxy(t, insecure)
			read := make(chan error, 1)
			p.publish(p.endpoints(func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				read <- err
			})[kind])
			for _, framing := range []string{"Content-Length: 100000\r\n\r\nxxx", "Transfer-Encoding: chunked\r\n\r\n3\r\nxxx\r\n"} {
				c, _ := p.raw(t, "POST / HTTP/1.1\r\nHost: shop.web\r\n"+framing)
				eventually(t, "the request to be on its way", func() bool { return p.gates.Activity(key).InFlight == 1 })
				<-time.After(20 * time.Millisecond)
				_ = c.Close()
				select {
				case err := <-read:
					if err == nil {
						t.Error("the endpoint saw a complete body")
					}
				case <-time.After(5 * time.Second):
					t.Error("the endpoint saw nothing")
				}
				p.awaitIdle()
			}
		})
	}
}

func TestAClientThatLeavesEndsItsRequestAtTheEndpoint(t *testing.T) {
	p := newProxy(t, insecure)
	begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	n := 0.0
	for kind, e := range p.endpoints(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}) {
		p.publish(e)
		for name, c := range map[string]*http.Client{"http1": p.client(http1), "h2c": p.client(h2c)} {
			for _, path := range []string{"/header", "/body"} {
				n++
				t.Run(fmt.Sprint(name, "→", kind, path), func(t *testing.T) {
					ctx, leave := context.WithCancel(t.Context())
					go func() {
						<-begun
						<-time.After(10 * time.Millisecond) // for the header of the answer to arrive
						leave()
					}()
					resp, err := c.Do(p.request(http.MethodGet, path, nil).WithContext(ctx))
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						_ = resp.Body.Close()
					}
					if err == nil {
						t.Error("a whole answer")
					}
					select {
					case <-ended:
					case <-time.After(5 * time.Second):
						t.Error("the endpoint was not told")
					}
					p.awaitIdle()
				})
			}
		}
	}
	eventually(t, fmt.Sprint(n, " requests to be counted as the client's leaving"), func() bool {
		return p.metric("dormouse_requests_total", "code", "499") == n
	})
	if n := p.metric("dormouse_requests_total", "code", "5xx"); n != 0 {
		t.Errorf("%v answers counted that nobody got", n)
	}
}

// metric returns the sum of a counter's series with this label.
func (p *proxy) metric(name, label, value string) (sum float64) {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
	}
	return sum
}

func TestAMalformedBodyIsTheClientsFault(t *testing.T) {
	p := newProxy(t, insecure)
	for kind, e := range p.endpoints(echo) {
		p.publish(e)
		_, r := p.raw(t, "POST / HTTP/1.1\r\nHost: shop.web\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
		if resp := answer(t, r, "POST"); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", kind, resp.Status)
		}
	}
	p.awaitIdle()
}

func TestAMalformedAnswerIsABadGateway(t *testing.T) {
	for _, text := range []string{
		"", "nonsense\r\n\r\n", "HTTP/1.1 099 Low\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: odd\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
	} {
		p := newProxy(t)
		p.rawEndpoint(func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		})
		resp, body := do(t, p.client(http1), p.request(http.MethodGet, "/", nil))
		if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40q: %s %s", text, resp.Status, body)
		}
		p.awaitIdle()
	}
}
