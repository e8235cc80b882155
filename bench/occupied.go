package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// occupied is a proxy whose memory is measured.
type occupied struct {
	address string
	pids    func() []int
	ready   func(n int) error       // waits until n clients are what they shall be; nil: they know it themselves
	live    func() (float64, error) // bytes in heap and stacks after a collection; nil: not known
	stop    func()
}

// occupyActivator starts an activator in front of what the occupation needs.
func occupyActivator(ctx context.Context, dir string, o occupation, args []string, certificate *certificate) (*occupied, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	command, err := endpointCommand(dir, o, port)
	if err != nil {
		return nil, err
	}
	profiles, err := freePort()
	if err != nil {
		return nil, err
	}
	a, err := activatorConfig{
		services: fmt.Sprintf(`- name: app
  process: {command: [%s], port: %d}
  routes: [{}]
  idle: {after: 24h}
  hold: {timeout: 1h}
`, quoted(command), port),
		args:        append([]string{"--max-connections=16000", "--keep-alive=1h", fmt.Sprintf("--pprof=127.0.0.1:%d", profiles)}, args...),
		certificate: certificate,
	}.start(ctx, dir)
	if err != nil {
		return nil, err
	}
	p := &occupied{
		address: a.http, stop: a.stop,
		pids: func() []int { return a.pids(false) }, // its children are the endpoints
		live: func() (float64, error) { return a.liveMemory(ctx, profiles) },
	}
	switch o.kind {
	case tlsKind:
		p.address = a.https
	case heldKind:
		p.ready = a.awaitHeldRequests
	}
	return p, nil
}

// quoted are the elements of a YAML list.
func quoted(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, strconv.Quote(w))
	}
	return strings.Join(q, ", ")
}

// endpointCommand is the command of the application behind the proxy, which listens on port.
func endpointCommand(dir string, o occupation, port int) ([]string, error) {
	app := filepath.Join(dir, "app")
	switch o.kind {
	case heldKind:
		return []string{app, "--listen-delay=1h"}, nil
	case webSocketKind:
		return []string{app, "--protocol=http1", fmt.Sprintf("--port=%d", port)}, nil
	default:
		config, err := startBackendConfig(dir, fmt.Sprintf("127.0.0.1:%d", port))
		return []string{"nginx", "-c", config, "-p", dir}, err
	}
}

var errHeld = errors.New("the activator does not come to hold them")

// awaitHeldRequests waits until n requests are held.
func (a *activator) awaitHeldRequests(n int) error {
	for range 600 {
		held, err := a.metric("dormouse_process_held_requests")
		if err != nil {
			return err
		}
		if int(held) >= n {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("wait until %d requests are held: %w", n, errHeld)
}

// liveMemory collects garbage and returns what is in use in heap and stacks, in bytes.
func (a *activator) liveMemory(ctx context.Context, profiles int) (sum float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1", profiles), http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", err)
	}
	_ = resp.Body.Close()
	for _, name := range []string{"go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes"} {
		v, err := a.metric(name)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// occupyNginx starts nginx in front of what the occupation needs.
func occupyNginx(dir string, o occupation, certificate *certificate) (_ *occupied, err error) {
	var ports [2]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	endpoint, listen := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	command, err := endpointCommand(dir, o, ports[0])
	if err != nil {
		return nil, err
	}
	app, err := startProcess("the application", endpoint, nil, command...)
	if err != nil {
		return nil, err
	}
	secure, location := "", `proxy_set_header Connection "";`
	switch o.kind {
	case tlsKind:
		secure = fmt.Sprintf(" ssl; ssl_certificate %s; ssl_certificate_key %s", certificate.file, certificate.key)
	case webSocketKind:
		location = `proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h;`
	}
	p, err := startNginxWith(dir, "nginx-memory", fmt.Sprintf(`
    upstream backend { server %s; keepalive 256; keepalive_requests 1000000; }
    server {
        listen %s%s;
        keepalive_requests 1000000; keepalive_timeout 1h;
        location / { proxy_pass http://backend; proxy_http_version 1.1; %s }
    }`, endpoint, listen, secure, location), listen)
	if err != nil {
		app.stop()
		return nil, err
	}
	return &occupied{
		address: listen,
		pids:    func() []int { return p.pids(true) },
		stop:    func() { p.stop(); app.stop() },
	}, nil
}
