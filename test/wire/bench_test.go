package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// benchRequest is what a browser sends, more or less.
const benchRequest = "GET /some/path?with=query HTTP/1.1\r\nHost: shop.web\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Language: en\r\nCookie: session=0123456789abcdef\r\n\r\n"

const benchAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n" +
	"Server: bench\r\nContent-Length: 100\r\n\r\n"

const benchChunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n" +
	"Server: bench\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"

// benchEndpoint answers requests without a body, and allocates nothing.
func benchEndpoint(b testing.TB, text string) (address string) {
	b.Helper()
	l := listen(b)
	b.Cleanup(func() { _ = l.Close() })
	answer := []byte(text)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						if _, err := c.Write(answer); err != nil {
							return
						}
						n = 0
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// benchClients sends b.N requests over some connections, and allocates nothing. It reports the CPU time of the whole
// process, clients and endpoint included: both are the same for every proxy.
func benchClients(b *testing.B, address string) {
	b.Helper()
	const conns = 32
	request := []byte(benchRequest)
	var wait sync.WaitGroup
	var ready sync.WaitGroup
	start := make(chan struct{})
	ready.Add(conns)
	for i := range conns {
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		wait.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				ready.Done()
				return
			}
			defer c.Close()
			buf := make([]byte, 4096)
			roundTrip := func() {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
				}
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						b.Error(err)
						return
					}
					n += m
					if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 && (n >= i+4+100 || bytes.HasSuffix(buf[:n], []byte("0123456789\r\n0\r\n\r\n"))) {
						return
					}
				}
			}
			roundTrip()
			ready.Done()
			<-start
			for range n {
				roundTrip()
			}
		})
	}
	ready.Wait()
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	close(start)
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkChunked(b *testing.B) {
	b.Run("dormouse", func(b *testing.B) {
		p := newProxy(b)
		p.publish(p.endpoint(benchEndpoint(b, benchChunked), scaling.ProtocolHTTP1))
		benchClients(b, p.addr)
	})
}

func BenchmarkWarm(b *testing.B) {
	endpoint := benchEndpoint(b, benchAnswer+strings.Repeat("x", 100))
	b.Run("direct", func(b *testing.B) { benchClients(b, endpoint) })
	b.Run("dormouse", func(b *testing.B) {
		p := newProxy(b)
		p.publish(p.endpoint(endpoint, scaling.ProtocolHTTP1))
		benchClients(b, p.addr)
	})
	b.Run("ReverseProxy", func(b *testing.B) {
		target := &url.URL{Scheme: "http", Host: endpoint}
		proxy := &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
			Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true},
		}
		l := listen(b)
		s := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
		go func() { _ = s.Serve(l) }()
		defer s.Close()
		benchClients(b, l.Addr().String())
	})
}

// BenchmarkHeld measures what a held request takes of memory: the process's resident set, its own clients excluded as far
// as possible by giving them nothing but a socket.
func BenchmarkHeld(b *testing.B) {
	const most = 9500
	for b.Loop() {
		p := newProxy(b, func(c *activator.Config, s *scaling.Service) {
			c.MaxConnections = most + 100
			s.Hold.Timeout = 2 * time.Minute
		})
		before := resident(b)
		var conns []int
		for range most {
			conns = append(conns, connect(b, p.addr, benchRequest))
		}
		p.awaitHeld(most)
		<-time.After(time.Second)
		b.ReportMetric(float64(resident(b)-before)/most/1024, "KiB/held")
		for _, c := range conns {
			_ = syscall.Close(c)
		}
		p.awaitIdle()
	}
}

// connect opens a connection as a bare descriptor: no goroutine, no buffer.
func connect(b *testing.B, address, request string) int {
	b.Helper()
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		b.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.Fatal(err)
	}
	if _, err := syscall.Write(fd, []byte(request)); err != nil {
		b.Fatal(err)
	}
	return fd
}

// resident returns the resident set in bytes.
func resident(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip(err)
	}
	var size, pages int
	_, _ = fmt.Sscan(string(text), &size, &pages)
	return pages * os.Getpagesize()
}

// BenchmarkDownload measures what passing a big answer on costs.
func BenchmarkDownload(b *testing.B) {
	const size = 1 << 20
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(make([]byte, size))
	}
	download := func(b *testing.B, address string) {
		b.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		r := bufio.NewReader(c)
		b.SetBytes(size)
		before := cpu()
		for b.Loop() {
			_, _ = io.WriteString(c, benchRequest)
			resp := answer(b, r, "GET")
			if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(cpu()-before)/float64(b.N)/1000, "cpu-µs/op")
	}
	b.Run("dormouse", func(b *testing.B) {
		p := newProxy(b)
		s := httptest.NewServer(http.HandlerFunc(h))
		defer s.Close()
		p.publish(p.endpoint(s.URL, scaling.ProtocolHTTP1))
		download(b, p.addr)
	})
	b.Run("direct", func(b *testing.B) {
		s := httptest.NewServer(http.HandlerFunc(h))
		defer s.Close()
		download(b, addressOf(s.URL))
	})
}
