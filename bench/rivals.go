package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// rival is one way to the backend.
type rival struct {
	name    string
	address string
	process *process
	workers bool  // it works in children of the process
	counted []int // processes whose CPU time is its own
	judged  bool  // by its ratio to nginx
}

const (
	activatorName    = "activator"
	reverseProxyName = "httputil.ReverseProxy"
	nginxName        = "nginx"
	haproxyName      = "HAProxy"
	directName       = "no proxy"
)

// proxy is how one is started.
type proxy struct {
	name    string
	workers bool
	start   func(dir, listen, backend string) (*process, error)
}

// startRivals starts the proxies in front of backend. Those that were started are returned with an error too.
func startRivals(dir, backend string) ([]*rival, error) {
	return startProxies(dir, backend, []proxy{
		{reverseProxyName, false, startReverseProxy}, {nginxName, true, startNginx}, {haproxyName, false, startHAProxy},
	})
}

func startProxies(dir, backend string, proxies []proxy) (rivals []*rival, err error) {
	for _, r := range proxies {
		port, err := freePort()
		if err != nil {
			return rivals, err
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		p, err := r.start(dir, address, backend)
		if err != nil {
			return rivals, err
		}
		rivals = append(rivals, &rival{name: r.name, address: address, process: p, workers: r.workers})
	}
	return rivals, nil
}

func stopAll(rivals []*rival) {
	for _, r := range rivals {
		r.process.stop()
	}
}

func startReverseProxy(_, listen, backend string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return startProcess(reverseProxyName, listen, []string{"DORMOUSE_BENCH_ROLE=reverseproxy"}, self, listen, backend)
}

// buffers is a httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// reverseProxy is the standard library's proxy at its best: with as many idle connections as it may need, because its
// default of two would measure dialing, and with a pool of buffers, because its default allocates 32 KiB per request.
func reverseProxy(args []string) error {
	listen, backend := args[0], args[1]
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend})
	proxy.BufferPool = new(buffers)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	server := &http.Server{Addr: listen, Handler: proxy, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	return server.ListenAndServe() //nolint:wrapcheck // for main, which names it
}

func startNginx(dir, listen, backend string) (*process, error) {
	return startNginxProxy(dir, nginxName, listen, backend, "proxy_buffer_size 32k; proxy_buffers 4 32k;") // with the default, 16 KiB cost a tenth more
}

// startNginxProxy starts nginx with further settings. It has a worker for each core, as its rivals may use each: one alone costs
// the same.
func startNginxProxy(dir, name, listen, backend, more string) (*process, error) {
	return startNginxWith(dir, name+"-proxy", fmt.Sprintf(`
    upstream backend { server %s; keepalive 256; keepalive_requests 1000000; }
    server {
        listen %s;
        keepalive_requests 1000000;
        location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; %s }
    }`, backend, listen, more), listen)
}

// startBackend starts the application that all proxies lead to.
func startBackend(dir string) (*rival, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	config, err := startBackendConfig(dir, address)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(directName, address, nil, "nginx", "-c", config, "-p", dir)
	if err != nil {
		return nil, err
	}
	return &rival{name: directName, address: address, process: p, workers: true}, nil
}

// startBackendConfig writes the configuration of an application: nginx with constant answers of 128 bytes at / and of 16 KiB
// at /16k, because it leaves most of the machine to those who are measured. At /read it reads the body before it answers, with
// 128 bytes: elsewhere it answers without waiting for the body, and a proxy that sends head and body one after the other then
// has an answer before it has sent the request.
func startBackendConfig(dir, listen string) (configFile string, err error) {
	_, port, _ := strings.Cut(listen, ":")
	return writeNginx(dir, "backend-"+port, fmt.Sprintf(`
    server {
        listen %s backlog=4096;
        keepalive_requests 1000000;
        default_type text/plain;
        set $k "%01024d";
        location / { return 200 "%0128d"; }
        location = /16k { return 200 "%s"; }
        location = /read { mirror /body; empty_gif; error_page 405 =200 @answer; }
        location = /body { internal; return 204; }
        location @answer { return 200 "%0128d"; }
    }`, listen, 0, 0, strings.Repeat("$k", 16), 0))
}

func startNginxWith(dir, name, http, listen string) (*process, error) {
	file, err := writeNginx(dir, name, http)
	if err != nil {
		return nil, err
	}
	return startProcess(name, listen, nil, "nginx", "-c", file, "-p", dir)
}

func writeNginx(dir, name, http string) (string, error) {
	file := filepath.Join(dir, name+".conf")
	config := fmt.Sprintf(`daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %[1]s/%[2]s.pid;
error_log %[1]s/%[2]s.log;
events { worker_connections 19000; }
http {
    access_log off;
    client_body_temp_path %[1]s/%[2]s-1; proxy_temp_path %[1]s/%[2]s-2; fastcgi_temp_path %[1]s/%[2]s-3;
    uwsgi_temp_path %[1]s/%[2]s-4; scgi_temp_path %[1]s/%[2]s-5;%[3]s
}
`, dir, name, http)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", fmt.Errorf("write nginx's configuration: %w", err)
	}
	return file, nil
}

func startHAProxy(dir, listen, backend string) (*process, error) {
	file := filepath.Join(dir, "haproxy.cfg")
	config := fmt.Sprintf(`global
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind %s
    default_backend out
backend out
    http-reuse always
    server one %s
`, listen, backend)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write HAProxy's configuration: %w", err)
	}
	return startProcess(haproxyName, listen, nil, "haproxy", "-db", "-f", file)
}
