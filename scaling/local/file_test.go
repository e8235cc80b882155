package local

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

func parseYAML(t *testing.T, text string) *File {
	t.Helper()
	file, err := Parse([]byte(text), "/srv")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheLeastFileHasAllDefaults(t *testing.T) {
	got := parseYAML(t, "services: [{name: shop, process: {command: [./shop]}}]")
	key := scaling.Key{Namespace: "default", Name: "shop"}
	want := &File{
		Listen: Listen{HTTP: "127.0.0.1:8080", Control: "127.0.0.1:8012", Metrics: "127.0.0.1:9090"},
		Services: []*Definition{{
			Service: scaling.Service{
				Key:    key,
				Target: scaling.Target{Namespace: "default", Kind: "Process", Name: "shop"},
				Routes: []scaling.Route{{
					Hosts: []string{"shop.default", "shop.default.svc", "shop.default.svc.cluster.local", "shop.localhost"},
				}},
				Idle:     scaling.Idle{After: 5 * time.Minute},
				Hold:     scaling.Hold{Timeout: 2 * time.Minute, MaxRequests: 10_000, FailFast: true},
				Timeouts: scaling.Timeouts{Dial: time.Second},
			},
			Process: Process{Command: []string{"./shop"}, Dir: "/srv", StopSignal: syscall.SIGTERM, StopGrace: 10 * time.Second},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwith %+v, want\n%+v\nwith %+v", got, got.Services[0], want, want.Services[0])
	}
}

func TestEveryFieldIsRead(t *testing.T) {
	dir := t.TempDir()
	ca := certificate(t)
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Parse([]byte(`
listen: {http: ":80", https: "0.0.0.0:8443", control: "[::1]:0", metrics: ""}
tls: {cert: tls.crt, key: /etc/tls.key}
services:
- name: shop
  namespace: web
  process:
    command: [node, server.js, --port, "{{port}}", 7, true]
    env: {LEVEL: debug, RETRIES: 3, EMPTY: , URL: "http://127.0.0.1:{{port}}"}
    dir: app
    port: 3000
    stopSignal: SIGINT
    stopGrace: 0s
  readiness: {http: "/healthz?deep=1"}
  routes:
  - hosts: [Shop.Example.COM., "*.shop.example.com"]
    paths: [/api, /v1/]
    headers: [{name: X-Tenant, value: blue}, {name: X-Beta}]
  - paths: [/]
  replicas: {min: 1, wake: 1, max: 1}
  idle: {after: 1h30m, initial: true}
  hold: {timeout: 0, maxRequests: 0, failFast: false}
  endpoint:
    protocol: HTTPS
    maxConcurrency: 80
    tls: {serverName: shop.internal, caFile: ca.crt, insecureSkipVerify: true}
  timeouts: {dial: 250ms, responseHeader: 1m, idle: 2m, total: 3m}
`), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Listen: Listen{HTTP: ":80", HTTPS: "0.0.0.0:8443", Control: "[::1]:0"},
		TLS:    TLS{Cert: filepath.Join(dir, "tls.crt"), Key: "/etc/tls.key"},
		Services: []*Definition{{
			Service: scaling.Service{
				Key:    scaling.Key{Namespace: "web", Name: "shop"},
				Target: scaling.Target{Namespace: "web", Kind: "Process", Name: "shop"},
				Routes: []scaling.Route{
					{
						Hosts:   []string{"shop.example.com", "*.shop.example.com"},
						Paths:   []string{"/api", "/v1"},
						Headers: []scaling.HeaderMatch{{Name: "X-Tenant", Value: "blue"}, {Name: "X-Beta"}},
					},
					{Paths: []string{"/"}},
					{Hosts: []string{"shop.web", "shop.web.svc", "shop.web.svc.cluster.local"}},
				},
				Replicas: scaling.Replicas{Min: 1, Wake: 1, Max: 1},
				Idle:     scaling.Idle{After: 90 * time.Minute, Initial: true},
				Upstream: scaling.Upstream{
					Protocol: scaling.ProtocolHTTPS, MaxConcurrency: 80,
					TLS: scaling.UpstreamTLS{ServerName: "shop.internal", CA: ca, InsecureSkipVerify: true},
				},
				Timeouts: scaling.Timeouts{Dial: 250 * time.Millisecond, ResponseHeader: time.Minute, Idle: 2 * time.Minute, Total: 3 * time.Minute},
			},
			Process: Process{
				Command: []string{"node", "server.js", "--port", "{{port}}", "7", "true"},
				Env:     map[string]string{"LEVEL": "debug", "RETRIES": "3", "EMPTY": "", "URL": "http://127.0.0.1:{{port}}"},
				Dir:     filepath.Join(dir, "app"), Port: 3000, StopSignal: syscall.SIGINT,
			},
			Readiness: Readiness{Kind: probe.HTTP, Path: "/healthz?deep=1"},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwith %+v, want\n%+v\nwith %+v", got, got.Services[0], want, want.Services[0])
	}
}

func TestReadinessIsWrittenInThreeWays(t *testing.T) {
	for text, want := range map[string]Readiness{
		"{}":                             {},
		"{tcp: {}}":                      {Kind: probe.TCP},
		"{tcp: }":                        {Kind: probe.TCP},
		"{http: /}":                      {Kind: probe.HTTP, Path: "/"},
		"{grpc: }":                       {Kind: probe.GRPC},
		`{grpc: {service: ""}}`:          {Kind: probe.GRPC},
		"{grpc: {service: shop.Cart}}":   {Kind: probe.GRPC, Service: "shop.Cart"},
		"{grpc: {service: !!null null}}": {Kind: probe.GRPC},
	} {
		file := parseYAML(t, "services: [{name: shop, process: {command: [shop]}, readiness: "+text+"}]")
		if got := file.Services[0].Readiness; got != want {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestANullFieldIsAsGoodAsNone(t *testing.T) {
	least := "services:\n- name: shop\n  process:\n    command: [shop]\n"
	nulls := least + "    env:\n    dir:\n    port:\n    stopSignal:\n    stopGrace:\n" +
		"  namespace:\n  readiness:\n  routes:\n  replicas:\n  idle: {after: ~}\n  hold:\n  endpoint: {protocol: null, tls: }\n  timeouts:\n" +
		"listen:\ntls:\n"
	if got, want := parseYAML(t, nulls), parseYAML(t, least); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got.Services[0], want.Services[0])
	}
}

func TestAliasesStandForWhatTheyName(t *testing.T) {
	file := parseYAML(t, `
services:
- {name: one, process: &process {command: [shop]}, idle: &idle {after: 7s}}
- {name: two, process: *process, idle: *idle}
`)
	if two := file.Services[1]; two.Process.Command[0] != "shop" || two.Service.Idle.After != 7*time.Second {
		t.Errorf("got %+v", two)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(path, []byte("services:\n- name: shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || err.Error() != path+":2: services[0].process: missing; it says what to run" {
		t.Errorf("got %v", err)
	}
}

func TestTheExamplesAreGood(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("there are no examples: ", err)
	}
	for _, example := range examples {
		if _, err := Load(example); err != nil {
			t.Error(err)
		}
	}
}

func TestTenThousandServicesLoadInTime(t *testing.T) {
	var text strings.Builder
	text.WriteString("services:\n")
	for n := range 10_000 {
		fmt.Fprintf(&text, `- name: shop-%d
  process: {command: [./shop, "--port={{port}}"], env: {LEVEL: debug}}
  readiness: {http: /healthz}
  routes: [{hosts: [shop-%d.example.com], paths: [/api]}]
  idle: {after: 30s}
`, n, n)
	}
	start := time.Now()
	file := parseYAML(t, text.String())
	if took := time.Since(start); len(file.Services) != 10_000 || took > 20*time.Second {
		t.Errorf("%d services in %v", len(file.Services), took)
	} else {
		t.Logf("%d services in %v", len(file.Services), took)
	}
}
