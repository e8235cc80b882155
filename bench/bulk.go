package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const bulkRole = "bulk"

// transfer is one body through one proxy.
type transfer struct {
	cpu  float64 // milliseconds of the proxy's per GiB
	rate float64 // GiB/s
}

// direction is which way bodies go, and the transfers by the rival's name, one for each round.
type direction struct {
	name      string
	carry     func(ctx context.Context, address string, bytes int64) error
	transfers map[string][]transfer
}

// bulk compares the proxies with one large body at a time, down and up, between peers that do nothing but send and receive.
func bulk(ctx context.Context, dir string, s settings, out io.Writer) error {
	size := int64(1 << 30)
	if s.quick {
		size >>= 2
	}
	rivals, err := startBulkSite(ctx, dir)
	defer stopAll(rivals)
	if err != nil {
		return err
	}
	directions := []direction{
		{"down", download, make(map[string][]transfer)},
		{"up", upload, make(map[string][]transfer)},
	}
	for round := range s.rounds {
		for _, d := range directions {
			for i := range rivals {
				r := rivals[(i+round)%len(rivals)]
				before, err := cpu(r.counted)
				if err != nil {
					return err
				}
				began := time.Now()
				if err := d.carry(ctx, r.address, size); err != nil {
					return fmt.Errorf("%s, %s: %w", r.name, d.name, err)
				}
				took := time.Since(began)
				after, err := cpu(r.counted)
				if err != nil {
					return err
				}
				gib := float64(size) / (1 << 30)
				d.transfers[r.name] = append(d.transfers[r.name], transfer{(after - before).Seconds() * 1000 / gib, gib / took.Seconds()})
			}
		}
		fmt.Printf("round %d of %d done\n", round+1, s.rounds)
	}
	reportBulk(out, s, size, rivals, directions)
	return nil
}

// startBulkSite starts the proxies that are compared in front of this program's own server. What was started is returned with
// an error too.
func startBulkSite(ctx context.Context, dir string) (rivals []*rival, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	backend := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := startProcess(directName, backend, []string{"DORMOUSE_BENCH_ROLE=" + bulkRole}, self, backend)
	if err != nil {
		return nil, err
	}
	rivals = append(rivals, &rival{name: directName, address: backend, process: p})
	proxies, err := startProxies(dir, backend, []proxy{
		{nginxName, true, startBulkNginx}, {wideNginxName, true, startWideNginx}, {haproxyName, false, startHAProxy},
	})
	if rivals = append(rivals, proxies...); err != nil {
		return rivals, err
	}
	all, err := engines(ctx, dir)
	if err != nil {
		return rivals, err
	}
	for i, e := range all {
		a, err := startActivator(ctx, dir, fmt.Sprintf(`- name: bulk
  process: {command: [%q, "127.0.0.1:{{port}}"], env: {DORMOUSE_BENCH_ROLE: %s}}
  routes: [{}]
  idle: {after: 24h}
`, self, bulkRole), e.args...)
		if err != nil {
			return rivals, err
		}
		rivals = append(rivals, &rival{name: e.name, address: a.http, process: a.process, judged: i == 0})
		if err := wake(ctx, a); err != nil {
			return rivals, err
		}
	}
	for _, r := range rivals {
		r.counted = r.process.pids(r.workers)
	}
	return rivals, nil
}

// bulkBuffers are nginx's settings for large bodies: they go through large buffers, and none of it to a file.
const bulkBuffers = `
            proxy_buffer_size 64k; proxy_buffers 8 128k; proxy_max_temp_file_size 0;
            proxy_request_buffering off; client_max_body_size 0;`

func startBulkNginx(dir, listen, backend string) (*process, error) {
	return startNginxProxy(dir, nginxName, listen, backend, bulkBuffers)
}

// wideNginxName is nginx at its best for uploads, which it reads into buffers of 16 KiB unless told otherwise.
const wideNginxName = "nginx, client_body_buffer_size 512k"

func startWideNginx(dir, listen, backend string) (*process, error) {
	return startNginxProxy(dir, "nginx-wide", listen, backend, bulkBuffers+" client_body_buffer_size 512k;")
}

// serveBulk is the role of this program that answers GET /N with N bytes, and everything else with how many bytes it has got.
func serveBulk(args []string) error {
	zeros := make([]byte, 1<<20)
	server := &http.Server{Addr: args[0], ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			size, _ := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			for ; size > 0; size -= int64(len(zeros)) {
				if _, err := w.Write(zeros[:min(size, int64(len(zeros)))]); err != nil {
					return // the client is gone
				}
			}
			return
		}
		n, err := discard(r.Body)
		if err == nil {
			fmt.Fprint(w, n)
		}
	})}
	return server.ListenAndServe() //nolint:wrapcheck // for main, which names it
}

// discard reads to the end, in pieces so large that this costs as little as it may.
func discard(r io.Reader) (n int64, err error) {
	buffer := make([]byte, 256<<10)
	for {
		more, err := r.Read(buffer)
		n += int64(more)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("read after %d bytes: %w", n, err)
		}
	}
}

var errBulk = errors.New("not all has arrived")

func download(ctx context.Context, address string, bytes int64) error {
	c, resp, err := bodyExchange(ctx, address, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: bench\r\n\r\n", bytes), 0)
	if err != nil {
		return err
	}
	defer c.Close()
	if n, err := discard(resp.Body); err != nil || n != bytes {
		return fmt.Errorf("%w: %d of %d bytes with status %d: %w", errBulk, n, bytes, resp.StatusCode, err)
	}
	return nil
}

func upload(ctx context.Context, address string, bytes int64) error {
	c, resp, err := bodyExchange(ctx, address, fmt.Sprintf("POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", bytes), bytes)
	if err != nil {
		return err
	}
	defer c.Close()
	var got int64
	if _, err := fmt.Fscan(resp.Body, &got); err != nil || got != bytes {
		return fmt.Errorf("%w: %d of %d bytes with status %d: %w", errBulk, got, bytes, resp.StatusCode, err)
	}
	return nil
}

// bodyExchange sends a request on a connection of its own, and returns its answer, whose body has not been read.
func bodyExchange(ctx context.Context, address, head string, body int64) (net.Conn, *http.Response, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	resp, err := func() (*http.Response, error) {
		if _, err := io.WriteString(c, head); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		zeros := make([]byte, 1<<20)
		for ; body > 0; body -= int64(len(zeros)) {
			if _, err := c.Write(zeros[:min(body, int64(len(zeros)))]); err != nil {
				return nil, fmt.Errorf("send: %w", err)
			}
		}
		return http.ReadResponse(bufio.NewReader(c), nil)
	}()
	if err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("answer: %w", err)
	}
	return c, resp, nil
}
