package feature

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// slack is by how much the memory of an activator, built with the race detector, may grow while bodies pass: what one
// needs to carry any of them.
const slack = 48 << 20

// peak returns the most memory that the activator has had resident so far, in bytes.
func (d *dormouse) peak() int {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		d.t.Fatal(err)
	}
	return kib << 10
}

func TestLargeBodiesPassInConstantMemory(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1"}), app(t, "two", []string{"--protocol=h2c"}, "endpoint: {protocol: H2C}"),
	})
	for _, way := range []struct {
		client, service string
		size            int64
	}{{"HTTP/1.1", "one", 256 << 20}, {"h2c", "two", 128 << 20}} {
		t.Run(way.client+" "+way.service, func(t *testing.T) {
			d, client := d.in(t), clients(t)[way.client]
			d.do(client, d.request(t.Context(), http.MethodPost, way.service, "/upload", bytes.NewReader(letters(1<<20))))
			before := d.peak()

			resp, err := client.Do(d.request(t.Context(), http.MethodGet, way.service, fmt.Sprintf("/bytes?n=%d", way.size), nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			hash := sha256.New()
			if n, err := io.Copy(hash, resp.Body); n != way.size || err != nil {
				t.Fatalf("download: %d bytes, %v", n, err)
			}
			down := hex.EncodeToString(hash.Sum(nil))

			_, body := d.do(client, d.request(t.Context(), http.MethodPost, way.service, "/upload", io.LimitReader(new(alphabet), way.size)))
			if !strings.Contains(body, down) {
				t.Errorf("what was sent up, %s, is not what came down, %s", body, down)
			}
			if grown := d.peak() - before; grown > slack {
				t.Errorf("memory has grown by %d MiB for bodies of %d MiB", grown>>20, way.size>>20)
			}
		})
	}
}

// alphabet reads as the alphabet, over and over.
type alphabet struct{ at int }

func (a *alphabet) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], manyLetters[a.at%26:])
		n += c
		a.at += c
	}
	return n, nil
}

var manyLetters = letters(26 << 10) //nolint:gochecknoglobals // constant

func TestClientThatStopsReadingFillsNoMemory(t *testing.T) {
	t.Parallel()
	const size = 1 << 30
	d := start(t, []string{sham(t, "one"), sham(t, "two", "endpoint: {protocol: H2C}")})
	var sent atomic.Int64
	handler := func(w http.ResponseWriter, _ *http.Request) {
		chunk := letters(26 << 10)
		for left := int64(size); left > 0; left -= int64(len(chunk)) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			sent.Add(int64(len(chunk)))
		}
	}
	d.serve("one", handler)
	d.serve("two", handler)
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				sent.Store(0)
				before := d.peak()
				resp, err := client.Do(d.request(t.Context(), http.MethodGet, service, "/", nil))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 1<<20)); err != nil {
					t.Fatal(err)
				}
				// The client reads no more. What all buffers on the way take, the kernel's included, is soon full.
				if last := settled(&sent); last > 64<<20 {
					t.Errorf("the endpoint got rid of %d MiB", last>>20)
				}
				if grown := d.peak() - before; grown > slack {
					t.Errorf("memory has grown by %d MiB", grown>>20)
				}
				// It goes on where it was.
				if _, err := io.CopyN(io.Discard, resp.Body, 16<<20); err != nil {
					t.Error(err)
				}
				_ = resp.Body.Close()
				d.awaitInFlight(service, 0)
			})
		}
	}
}

func TestEndpointThatStopsReadingFillsNoMemory(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	d := start(t, []string{sham(t, "one"), sham(t, "two", "endpoint: {protocol: H2C}")})
	resume := make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		<-resume
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}
	d.serve("one", handler)
	d.serve("two", handler)
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				before := d.peak()
				var sent atomic.Int64
				body := &counted{Reader: io.LimitReader(new(alphabet), size), n: &sent}
				answer := send(client, d.request(t.Context(), http.MethodPost, service, "/", body))
				if last := settled(&sent); last > 64<<20 {
					t.Errorf("the client got rid of %d MiB", last>>20)
				}
				if grown := d.peak() - before; grown > slack {
					t.Errorf("memory has grown by %d MiB", grown>>20)
				}
				resume <- struct{}{}
				if r := want(t, answer, http.StatusOK); r.body != fmt.Sprint(size-1<<20, " <nil>") {
					t.Errorf("the endpoint has read %s", r.body)
				}
			})
		}
	}
}

// settled waits until n, which grows, grows no more, and returns it.
func settled(n *atomic.Int64) (last int64) {
	for still := 0; still < 20; still++ {
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // there is no event when nothing happens
		if now := n.Load(); now != last || now == 0 {
			last, still = now, 0
		}
	}
	return last
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestBodiesKeepTheirFraming(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--protocol=http1"})})
	d.get("shop", "/")

	t.Run("of requests", func(t *testing.T) {
		for _, c := range []struct {
			what, head, body string
			length           int64
		}{
			{"length", "Content-Length: 5\r\n", "hello", 5},
			{"no body with a length", "Content-Length: 0\r\n", "", 0},
			{"chunks", "Transfer-Encoding: chunked\r\n", "2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", -1},
			{"no body in chunks", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", -1},
		} {
			for _, method := range []string{"POST", "PUT", "DELETE", "GET"} {
				w := d.in(t).wire()
				w.send(method + " /headers HTTP/1.1\r\nHost: shop.default\r\n" + c.head + "\r\n" + c.body)
				_, body := w.response(method)
				if s := parseSeen(t, body); s.ContentLength != c.length || (len(s.TransferEncoding) == 1) != (c.length < 0) {
					t.Errorf("%s with %s: endpoint saw length %d, %q", method, c.what, s.ContentLength, s.TransferEncoding)
				}
			}
		}
		w := d.in(t).wire()
		w.send("GET /headers HTTP/1.1\r\nHost: shop.default\r\n\r\n")
		_, body := w.response("GET")
		for _, line := range parseSeen(t, body).Lines {
			if strings.HasPrefix(line, "Content-Length") || strings.HasPrefix(line, "Transfer-Encoding") {
				t.Errorf("GET without a body: endpoint saw %q", line)
			}
		}
	})

	t.Run("of answers", func(t *testing.T) {
		for query, length := range map[string]int64{"n=100&cl=1": 100, "n=100": -1, "n=3m&cl=1": 3 << 20, "n=3m": -1, "n=0&cl=1": 0, "n=0": -1} {
			w := d.in(t).wire()
			w.send("GET /bytes?" + query + " HTTP/1.1\r\nHost: shop.default\r\n\r\n")
			resp, body := w.response("GET")
			if resp.ContentLength != length || (len(resp.TransferEncoding) == 1) != (length < 0) || resp.Close {
				t.Errorf("%s: length %d, %q, closes: %t", query, resp.ContentLength, resp.TransferEncoding, resp.Close)
			}
			if body != string(letters(len(body))) || length >= 0 && len(body) != int(length) {
				t.Errorf("%s: %d bytes, or not the right ones", query, len(body))
			}
		}
	})

	t.Run("of uploads", func(t *testing.T) {
		for name, client := range clients(t) {
			for _, size := range []int{0, 1, 4096, 32 << 10, 64<<10 + 1, 5 << 20} {
				for _, known := range []bool{true, false} {
					var body io.Reader = bytes.NewReader(letters(size))
					if !known {
						body = io.MultiReader(body)
					}
					d := d.in(t)
					_, text := d.do(client, d.request(t.Context(), http.MethodPost, "shop", "/upload", body))
					var got struct {
						Bytes  int
						Sha256 string
					}
					sum := sha256.Sum256(letters(size))
					if err := json.Unmarshal([]byte(text), &got); err != nil || got.Bytes != size || got.Sha256 != hex.EncodeToString(sum[:]) {
						t.Errorf("%s, %d bytes, length known: %t: %v %s", name, size, known, err, text)
					}
				}
			}
		}
	})
}
