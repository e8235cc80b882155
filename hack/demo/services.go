package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// service is one of the samples: how its process is started and how it is asked.
type service struct {
	name, kind string
	args       string // of the sample server
	yaml       string // more of its definition
	ask        asker
}

var services = []service{ //nolint:gochecknoglobals // a table
	{"web", "HTTP", "--listen-delay=1s", "readiness: {http: /healthz}", askHTTP("/")},
	{"rpc", "gRPC", "--protocol=grpc, --listen-delay=300ms", "readiness: {grpc: {}}", askGRPC},
	{"chat", "WebSocket", "--listen-delay=500ms", "", askWebSocket},
	{"page", "HTML page", "--listen-delay=200ms", "readiness: {http: /healthz}", askHTTP("/page")},
}

// configuration is the activator's file.
func configuration(d *demo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {http: %q, control: %q, metrics: %q}\nservices:\n", d.http, d.control, d.metrics)
	for _, s := range services {
		fmt.Fprintf(&b, "- name: %s\n  process: {command: [%q, --name=%s, %s]}\n  idle: {after: %v}\n", s.name, filepath.Join(d.dir, "app"), s.name, s.args, idle)
		if s.yaml != "" {
			fmt.Fprintf(&b, "  %s\n", s.yaml)
		}
	}
	return b.String()
}

// hints says what to try while the demo stays up.
func hints(d *demo) {
	_, port, _ := net.SplitHostPort(d.http)
	fmt.Printf(`
It stays up. Each request wakes its service if it sleeps; %v after the last one it sleeps again. Try:

  curl -i http://web.localhost:%s/                          # look at Server-Timing: how long it was held, and for what
  curl http://page.localhost:%s/page                        # or open it in a browser
  curl -N http://chat.localhost:%s/sse?delay=1s             # a stream keeps its service awake
  curl http://%s/api/v1/services/default/web       # what the activator knows of it
  curl -X POST http://%s/api/v1/services/default/web/pin?for=1h
  curl -N http://%s/api/v1/events                  # every change of state
  curl http://%s/metrics | grep dormouse_cold

Its log: %s
Ctrl-C ends it.
`, idle, port, port, port, d.control, d.control, d.control, d.metrics, d.logPath())
}
