package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// exchangeKind is a kind of request of an HTTP/2 client, and the endpoint that answers it.
type exchangeKind struct {
	title    string
	path     string
	message  []byte // of gRPC (length-prefixed); nil: a GET
	protocol string // of the endpoint, as in the activator's configuration
	answer   int    // bytes of the answer's body
	endpoint func(dir, address string, port int) ([]string, error)
}

const (
	http1Endpoint = "HTTP1"
	h2cEndpoint   = "H2C"
)

func exchangeKinds() []exchangeKind {
	return []exchangeKind{
		{
			title: "GET, to HTTP/1.1", path: "/", protocol: http1Endpoint, answer: 128,
			endpoint: func(dir, address string, _ int) ([]string, error) {
				config, err := startBackendConfig(dir, address)
				return []string{"nginx", "-c", config, "-p", dir}, err
			},
		},
		{
			title: "GET, to HTTP/2", path: "/", protocol: h2cEndpoint, answer: 128,
			endpoint: func(dir, address string, _ int) ([]string, error) {
				config, err := writeNginx(dir, "backend-h2c", fmt.Sprintf(`
    server {
        listen %s http2 backlog=4096;
        keepalive_requests 100000000;
        location / { default_type text/plain; return 200 "%0128d"; }
    }`, address, 0))
				return []string{"nginx", "-c", config, "-p", dir}, err
			},
		},
		{
			// SimpleRequest{response_size: 64}; the answer is a SimpleResponse with a payload with a body of 64 bytes: three lengths around it.
			title: "gRPC, unary", path: "/grpc.testing.TestService/UnaryCall", protocol: h2cEndpoint,
			message: []byte{0, 0, 0, 0, 2, 0x10, 64}, answer: 5 + 2 + 2 + 64,
			endpoint: func(dir, _ string, port int) ([]string, error) {
				return []string{filepath.Join(dir, "app"), "--protocol=grpc", fmt.Sprintf("--port=%d", port)}, nil
			},
		},
	}
}

// http2 compares the ways from an HTTP/2 client to an application that is awake.
func http2(ctx context.Context, dir string, s settings, out io.Writer) error {
	fmt.Fprintf(out, `
h2load, in clear text, %d connections with %d requests at a time on each, as many as they can; %d rounds of %v, in rotation. The
endpoints are nginx, which answers with 128 bytes, and for gRPC grpc-go, with a message of 64. CPU is the proxy's own, user and
system. To HTTP/2 and gRPC nginx is `+"`grpc_pass`"+`, which does not put several requests on one connection.

| | | requests/s | CPU per request | ratio to nginx | p99 |
|---|---|---|---|---|---|
`, h2Connections, h2Streams, s.rounds, s.measured)
	for _, k := range exchangeKinds() {
		if err := k.compare(ctx, dir, s, out); err != nil {
			return fmt.Errorf("%s: %w", k.title, err)
		}
	}
	return nil
}

// As many requests at a time as the connections of the warm comparison.
const h2Connections, h2Streams = 8, 8

func (k exchangeKind) compare(ctx context.Context, dir string, s settings, out io.Writer) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	endpoint := fmt.Sprintf("127.0.0.1:%d", port)
	command, err := k.endpoint(dir, endpoint, port)
	if err != nil {
		return err
	}
	a, err := startActivator(ctx, dir, fmt.Sprintf(`- name: app
  process: {command: [%s], port: %d}
  routes: [{}]
  idle: {after: 24h}
  endpoint: {protocol: %s}
`, quoted(command), port, k.protocol))
	if err != nil {
		return err
	}
	stops := []func(){a.stop}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	ways := []way{{activatorName, a.http, func() []int { return a.pids(false) }}}
	if err := k.check(ctx, a.http); err != nil { // and wakes the endpoint that the others lead to, too
		return fmt.Errorf("%s: %w", activatorName, err)
	}
	for _, r := range []struct {
		name  string
		start func(dir, listen, endpoint string) (*process, error)
	}{{nginxName, k.startNginx}, {haproxyName, k.startHAProxy}} {
		port, err := freePort()
		if err != nil {
			return err
		}
		listen := fmt.Sprintf("127.0.0.1:%d", port)
		p, err := r.start(dir, listen, endpoint)
		if err != nil {
			return err
		}
		stops = append(stops, p.stop)
		if err := k.check(ctx, listen); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		ways = append(ways, way{r.name, listen, func() []int { return p.pids(true) }})
	}
	l, err := k.load(dir)
	if err != nil {
		return err
	}
	samples, err := l.compare(ctx, dir, ways, s)
	if err != nil {
		return err
	}
	for _, w := range ways {
		mine := samples[w.name]
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", k.title, w.name,
			spread(values(mine, func(l loaded) float64 { return l.perSecond }), "%.0f"),
			spread(values(mine, func(l loaded) float64 { return l.micros }), "%.1f µs"),
			spread(cpuRatios(mine, samples[nginxName]), "%.2f"),
			spread(values(mine, func(l loaded) float64 { return l.p99.Seconds() * 1000 }), "%.2f ms"))
	}
	return nil
}

func (k exchangeKind) load(dir string) (load, error) {
	l := load{url: "http://bench" + k.path, options: []string{fmt.Sprintf("-c%d", h2Connections), fmt.Sprintf("-m%d", h2Streams)}}
	if k.message != nil {
		file := filepath.Join(dir, "message")
		if err := os.WriteFile(file, k.message, 0o600); err != nil {
			return l, fmt.Errorf("write the message: %w", err)
		}
		l.options = append(l.options, "--data="+file, "-Hcontent-type: application/grpc", "-Hte: trailers")
	}
	return l, nil
}

// check sends one request over HTTP/2 and looks at all of the answer, which h2load does not.
func (k exchangeKind) check(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	method := http.MethodGet
	if k.message != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+k.path, bytes.NewReader(k.message))
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	if k.message != nil {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("try one request: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("try one request: %w", err)
	}
	status := resp.Trailer.Get("Grpc-Status")
	if resp.StatusCode != http.StatusOK || len(body) != k.answer || k.message != nil && status != "0" {
		return fmt.Errorf("one request was answered with %s, %d bytes, gRPC status %q", resp.Status, len(body), status)
	}
	return nil
}

func (k exchangeKind) startNginx(dir, listen, endpoint string) (*process, error) {
	location := `proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;`
	if k.protocol == h2cEndpoint {
		location = `grpc_pass grpc://backend; grpc_set_header Host $host;`
	}
	return startNginxWith(dir, "nginx-http2", fmt.Sprintf(`
    upstream backend { server %s; keepalive 256; keepalive_requests 100000000; }
    server {
        listen %s http2;
        keepalive_requests 100000000;
        location / { %s }
    }`, endpoint, listen, location), listen)
}

func (k exchangeKind) startHAProxy(dir, listen, endpoint string) (*process, error) {
	protocol := ""
	if k.protocol == h2cEndpoint {
		protocol = " proto h2"
	}
	file := filepath.Join(dir, "haproxy-http2.cfg")
	config := fmt.Sprintf(`global
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind %s proto h2
    default_backend out
backend out
    http-reuse always
    server one %s%s
`, listen, endpoint, protocol)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write HAProxy's configuration: %w", err)
	}
	return startProcess(haproxyName, listen, nil, "haproxy", "-db", "-f", file)
}
