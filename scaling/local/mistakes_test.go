package local

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate returns a certificate in PEM.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestEachMistakeIsNamed gives fields of a service that is otherwise good, and the mistakes in them without their
// positions.
func TestEachMistakeInAServiceIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	const okProcess = ", process: {command: [shop]}"
	for _, c := range []struct{ fields, want string }{
		// Unknown fields.
		{"name: shop, idel: {}" + okProcess, `idel: unknown field; did you mean "idle"?`},
		{"name: shop, idle: {afetr: 5m}" + okProcess, `idle.afetr: unknown field; did you mean "after"?`},
		{"name: shop, idle: {whatever: 5m}" + okProcess, `idle.whatever: unknown field; known are after, initial`},
		{"name: shop, hold: {maxrequests: 5}" + okProcess, `hold.maxrequests: unknown field; did you mean "maxRequests"?`},
		{"name: shop, readiness: {tcp: {port: 1}}" + okProcess, `readiness.tcp.port: unknown field; known are `},
		{"name: shop, <<: {idle: {}}" + okProcess, `<<: merge keys are not supported; write the fields out`},
		{"name: shop, ? [a, b] : c" + okProcess, `: a name must be a word`},
		// Wrong types.
		{"name: 123" + okProcess, `name: this must be a text, not the number 123`},
		{"name: yes, namespace: true" + okProcess, `namespace: this must be a text, not true (put it in quotes if it is meant as a text)`},
		{"name: shop, idle: 5m" + okProcess, `idle: this must be a mapping of names to values, not "5m"`},
		{"name: shop, routes: {hosts: [a.example]}" + okProcess, `routes: this must be a list, not a mapping`},
		{"name: shop, routes: [{hosts: a.example}]" + okProcess, `routes[0].hosts: this must be a list, not "a.example"`},
		{"name: shop, routes: [{hosts: [[]]}]" + okProcess, `routes[0].hosts[0]: this must be a text, not a list`},
		{"name: shop, idle: {initial: 1}" + okProcess, `idle.initial: this must be true or false, not the number 1`},
		{"name: shop, idle: {initial: 'true'}" + okProcess, `idle.initial: this must be true or false, not "true"`},
		{"name: shop, idle: {after: [5m]}" + okProcess, `idle.after: this must be a duration, such as 30s or 5m, not a list`},
		{"name: shop, replicas: {max: '3'}" + okProcess, `replicas.max: this must be a whole number, not "3"`},
		{"name: shop, replicas: {max: 1.5}" + okProcess, `replicas.max: this must be a whole number, not the number 1.5`},
		{"name: shop, process: ./shop", `process: this must be a mapping of names to values, not "./shop"`},
		{"name: shop, process: {command: ./shop --fast}", `process.command: this must be a list, such as [./shop, --fast]; for a line of shell use [sh, -c, "…"]`},
		{"name: shop, process: {command: {a: b}}", `process.command: this must be a list, not a mapping`},
		{"name: shop, process: {command: [[a]]}", "process.command[0]: this must be a text, not a list\nprocess.command: its first word, the program, is empty"},
		{`name: shop, process: {command: [a, "b\0c"]}`, `process.command[1]: this must not contain a zero byte`},
		// Missing things.
		{"namespace: web" + okProcess, `name: missing; it is what the service is called`},
		{"name: " + okProcess, `name: missing; it is what the service is called`},
		{"name: shop", `process: missing; it says what to run`},
		{"name: shop, process: ", `process.command: missing; it is what to run, such as [./shop, --fast]`},
		{"name: shop, process: {dir: .}", `process.command: missing; it is what to run, such as [./shop, --fast]`},
		{"name: shop, process: {command: []}", `process.command: missing; it is what to run, such as [./shop, --fast]`},
		{"name: shop, process: {command: [shop, ~]}", `process.command[1]: there is nothing here`},
		{"name: shop, routes: [{hosts: [~]}]" + okProcess, `routes[0].hosts[0]: there is nothing here`},
		{`name: shop, process: {command: [""]}`, `process.command: its first word, the program, is empty`},
		{"name: shop, routes: [{headers: [{value: x}]}]" + okProcess, `routes[0].headers[0].name: missing; it is the header to look at`},
		{"name: shop, readiness: {http: }" + okProcess, `readiness.http: this must be a path, such as /healthz`},
		// Twice.
		{"name: shop, name: shop" + okProcess, `name: this is set twice, first in line 2`},
		{"name: shop, process: {command: [shop], env: {A: 1, A: 2}}", `process.env.A: this is set twice, first in line 2`},
		// Durations and numbers.
		{"name: shop, idle: {after: 5 minutes}" + okProcess, `idle.after: "5 minutes" is not a duration; use a number and a unit, such as 30s or 5m`},
		{"name: shop, idle: {after: 30}" + okProcess, `idle.after: "30" is not a duration; use a number and a unit, such as 30s or 5m`},
		{"name: shop, idle: {after: -5m}" + okProcess, `idle.after: -5m is negative`},
		{"name: shop, timeouts: {dial: -1s, total: -2s}" + okProcess, "timeouts.dial: -1s is negative\ntimeouts.total: -2s is negative"},
		{"name: shop, hold: {maxRequests: -1}" + okProcess, `hold.maxRequests: -1 is negative`},
		{"name: shop, endpoint: {maxConcurrency: -1}" + okProcess, `endpoint.maxConcurrency: -1 is negative`},
		{"name: shop, replicas: {min: 3000000000}" + okProcess, `replicas.min: 3000000000 is too large; the most is 2147483647`},
		{"name: shop, replicas: {min: 99999999999999999999}" + okProcess, `replicas.min: this must be a whole number, not the number 99999999999999999999`},
		// Names, hosts, paths and headers.
		{"name: Web Shop" + okProcess, `name: "Web Shop" is not a name; use up to 53 small letters, digits and hyphens, with no hyphen at its ends`},
		{"name: -shop" + okProcess, `name: "-shop" is not a name; use up to 53 small letters, digits and hyphens, with no hyphen at its ends`},
		{"name: shop, namespace: a.b" + okProcess, `namespace: "a.b" is not a name; use up to 63 small letters, digits and hyphens, with no hyphen at its ends`},
		{"name: " + strings.Repeat("x", 54) + okProcess, `name: "` + strings.Repeat("x", 54) + `" is not a name; use up to 53 small letters, digits and hyphens, with no hyphen at its ends`},
		{`name: shop, routes: [{hosts: ["a.example:80"]}]` + okProcess, `routes[0].hosts[0]: "a.example:80" is not a host; leave scheme and port out`},
		{`name: shop, routes: [{hosts: ["*"]}]` + okProcess, `routes[0].hosts[0]: "*" is not a host; a wildcard stands for all of the first labels, as in *.example.com`},
		{`name: shop, routes: [{hosts: ["a.*.example"]}]` + okProcess, `routes[0].hosts[0]: "a.*.example" is not a host; a wildcard stands for all of the first labels, as in *.example.com`},
		{`name: shop, routes: [{hosts: ["a..example"]}]` + okProcess, `routes[0].hosts[0]: "a..example" is not a host; use a name such as shop.example.com or *.example.com`},
		{`name: shop, routes: [{hosts: [""]}]` + okProcess, `routes[0].hosts[0]: "" is not a host; use a name such as shop.example.com or *.example.com`},
		{`name: shop, routes: [{hosts: ["a b"]}]` + okProcess, `routes[0].hosts[0]: "a b" is not a host; use a name such as shop.example.com or *.example.com`},
		{"name: shop, routes: [{paths: [api]}]" + okProcess, `routes[0].paths[0]: "api" is not a path; begin it with a slash`},
		{"name: shop, routes: [{paths: ['/a?b']}]" + okProcess, `routes[0].paths[0]: "/a?b" has a query or a fragment; routes match paths alone`},
		{"name: shop, routes: [{paths: ['/a b']}]" + okProcess, `routes[0].paths[0]: "/a b" is not a path; write it as in a request, spaces as %20`},
		{"name: shop, routes: [{paths: [/a/../b]}]" + okProcess, `routes[0].paths[0]: "/a/../b" has a dot segment; no such request is matched`},
		{"name: shop, routes: [{headers: [{name: 'X Y'}]}]" + okProcess, `routes[0].headers[0].name: "X Y" cannot be the name of a header`},
		{`name: shop, routes: [{headers: [{name: X, value: "a\nb"}]}]` + okProcess, `routes[0].headers[0].value: "a\nb" cannot be the value of a header`},
		{"name: shop, readiness: {http: healthz}" + okProcess, `readiness.http: "healthz" is not a path; begin it with a slash, as in /healthz`},
		// The process.
		{"name: shop, process: {command: [shop], port: 70000}", `process.port: 70000 is too large; the most is 65535`},
		{"name: shop, process: {command: [shop], port: -1}", `process.port: -1 is negative`},
		{"name: shop, process: {command: [shop], stopSignal: SIGTRM}", `process.stopSignal: "SIGTRM" is not a signal; use its name, such as SIGTERM or SIGINT`},
		{"name: shop, process: {command: [shop], env: {PORT: 3000}}", `process.env.PORT: the process is always given its port in PORT; set process.port to choose it`},
		{"name: shop, process: {command: [shop], env: {'A=B': x}}", `process.env.A=B: "A=B" cannot be the name of an environment variable`},
		// Contradictions.
		{"name: shop, replicas: {min: 3, max: 2}" + okProcess, `replicas: min, 3, is more than max, 2`},
		{"name: shop, replicas: {wake: 3, max: 2}" + okProcess, `replicas: wake, 3, is more than max, 2`},
		{"name: shop, replicas: {min: 3, wake: 2}" + okProcess, `replicas: wake, 2, is less than min, 3`},
		{"name: shop, process: {command: [shop], port: 3000}, replicas: {max: 2}", `process.port: 2 replicas cannot all listen on port 3000; leave the port out, and each has its own`},
		{"name: shop, replicas: {wake: 2}, process: {port: 3000, command: [shop]}", `process.port: 2 replicas cannot all listen on port 3000; leave the port out, and each has its own`},
		{"name: shop, readiness: {tcp: {}, http: /}" + okProcess, `readiness.http: readiness is proven in one way: http, tcp or grpc`},
		{"name: shop, endpoint: {protocol: http1}" + okProcess, `endpoint.protocol: "http1" is not a protocol; did you mean "HTTP1"?`},
		{"name: shop, endpoint: {protocol: gopher}" + okProcess, `endpoint.protocol: "gopher" is not a protocol; known are Auto, HTTP1, H2C, HTTPS`},
		{"name: shop, endpoint: {protocol: HTTP1}, readiness: {grpc: {}}" + okProcess, `readiness.grpc: readiness is asked for by gRPC in clear text, which endpoint.protocol HTTP1 is not; use http or tcp`},
		{"name: shop, endpoint: {tls: {serverName: a}}" + okProcess, `endpoint.tls: this is of no effect unless endpoint.protocol is HTTPS`},
		{"name: shop, endpoint: {protocol: HTTPS, tls: {caFile: none.crt}}" + okProcess, `endpoint.tls.caFile: stat ` + dir + `/none.crt: no such file or directory`},
		{"name: shop, endpoint: {protocol: HTTPS, tls: {caFile: notes.txt}}" + okProcess, `endpoint.tls.caFile: ` + dir + `/notes.txt has no certificate in PEM form`},
		{"name: shop, endpoint: {protocol: HTTPS, tls: {caFile: /dev/zero}}" + okProcess, `endpoint.tls.caFile: /dev/zero is no file`},
	} {
		_, err := Parse([]byte("services:\n- {"+c.fields+"}\n"), dir)
		if err == nil {
			t.Errorf("%s: got no error, want %s", c.fields, c.want)
			continue
		}
		got := strings.ReplaceAll(err.Error(), "line 2: services[0]", "")
		got = strings.TrimPrefix(strings.ReplaceAll(got, "\n.", "\n"), ".")
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.fields, got, c.want)
		}
	}
}

func TestEachMistakeInAFileIsNamed(t *testing.T) {
	const shop = "services: [{name: shop, process: {command: [shop]}}]"
	for text, want := range map[string]string{
		"":                                    `line 1: the file is empty; it lists services under "services:"`,
		"# nothing\n":                         `line 1: the file is empty; it lists services under "services:"`,
		"just words":                          `line 1: the file must be a mapping that begins with names such as "services:", not "just words"`,
		"listen: {}":                          `line 1: services: missing; it is the list of what to run`,
		"service: []":                         "line 1: service: unknown field; did you mean \"services\"?\nline 1: services: missing; it is the list of what to run",
		"services: [shop]":                    `line 1: services[0]: this must be a service, with at least a name and a process, not "shop"`,
		"services: [~]":                       `line 1: services[0]: there is nothing here`,
		"a: [":                                "line 1: not YAML: did not find expected node content",
		"services:\n\t- name: shop":           "line 2: not YAML: found character that cannot start any token",
		"a: *b":                               "not YAML: unknown anchor 'b' referenced",
		shop + "\n---\n" + shop:               "line 2: a second document begins here; a file has one",
		"listen: {http: 8080}\n" + shop:       `line 1: listen.http: this must be a text, not the number 8080`,
		"listen: {http: '8080'}\n" + shop:     `line 1: listen.http: "8080" is not an address; use host:port, such as 127.0.0.1:8080`,
		"listen: {http: ':http'}\n" + shop:    `line 1: listen.http: "http" is not a port; use a number up to 65535`,
		"listen: {http: ':65536'}\n" + shop:   `line 1: listen.http: "65536" is not a port; use a number up to 65535`,
		"listen: {control: ':8012'}\n" + shop: `line 1: listen.control: ":8012" can be reached from elsewhere; the control port listens on a loopback address, such as 127.0.0.1:8012`,
		"listen: {control: '192.168.0.1:8012'}\n" + shop:                 `line 1: listen.control: "192.168.0.1:8012" can be reached from elsewhere; the control port listens on a loopback address, such as 127.0.0.1:8012`,
		"listen: {http: 'localhost:1', metrics: 'localhost:1'}\n" + shop: `line 1: listen.metrics: localhost:1 is the address of listen.http, too`,
		"listen:\n  https: ':8443'\n" + shop:                             `line 2: listen.https: an https listener needs a certificate; name its files in tls.cert and tls.key`,
		"tls: {cert: a.crt}\n" + shop:                                    `line 1: tls.key: missing; it goes together with cert`,
		"listen: {https: ':8443'}\ntls: {key: a.key}\n" + shop: "line 1: listen.https: an https listener needs a certificate; name its files in tls.cert and tls.key\n" +
			"line 2: tls.cert: missing; it goes together with key",
	} {
		if _, err := Parse([]byte(text), "/srv"); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestServicesMustNotTakeFromEachOther(t *testing.T) {
	const process = "process: {command: [shop]}"
	for _, c := range []struct{ one, other, want string }{
		{
			"name: shop, " + process, "name: shop, " + process,
			"line 3: services[1].name: shop is the name of services[0], too (line 2)",
		},
		{
			"name: shop, " + process, "name: shop, namespace: web, " + process,
			"line 3: services[1].name: shop.localhost is a host of services[0] (line 2) already; a service has that host unless it is given routes",
		},
		{
			"name: shop, " + process, "name: cart, routes: [{hosts: [SHOP.localhost]}], " + process,
			"line 3: services[1].routes[0].hosts[0]: shop.localhost is a host of services[0] (line 2) already",
		},
		{
			"name: shop, " + process, "name: cart, routes: [{hosts: [shop.default.svc]}], " + process,
			"line 3: services[1].routes[0].hosts[0]: shop.default.svc is a host of services[0] (line 2) already",
		},
		{
			"name: shop, routes: [{hosts: ['*.a.example'], paths: [/b, /c/]}], " + process,
			"name: cart, routes: [{hosts: ['*.a.example'], paths: [/c]}], " + process,
			"line 3: services[1].routes[0].hosts[0]: *.a.example/c is a route of services[0] (line 2) already",
		},
		{
			"name: shop, routes: [{headers: [{name: A, value: x}, {name: B}]}], " + process,
			"name: cart, routes: [{headers: [{name: b}, {name: a, value: x}]}], " + process,
			"line 3: services[1].routes[0]: services[0] (line 2) takes these requests to every host already",
		},
		{
			"name: shop, process: {command: [shop], port: 3000}", "name: cart, process: {command: [cart], port: 3000}",
			"line 3: services[1].process.port: 3000 is services[0].process.port, too (line 2)",
		},
	} {
		_, err := Parse([]byte("services:\n- {"+c.one+"}\n- {"+c.other+"}\n"), "/srv")
		if err == nil || err.Error() != c.want {
			t.Errorf("%s and %s:\n got %v\nwant %s", c.one, c.other, err, c.want)
		}
	}
}

func TestServicesMayShareWhatTellsThemApart(t *testing.T) {
	parseYAML(t, `
services:
- name: shop
  namespace: a
  routes:
  - hosts: [shop.example.com, shop.a, shop.example.com]
  - {hosts: [shop.example.com], paths: [/api]}
  process: {command: [shop]}
- name: shop
  namespace: b
  routes:
  - {hosts: [shop.example.com], paths: [/b]}
  - {hosts: [shop.example.com], headers: [{name: X-Tenant, value: b}]}
  - hosts: ["*.example.com"]
  process: {command: [shop]}
`)
}

func TestAllMistakesAreToldAtOnceInTheirOrder(t *testing.T) {
	_, err := Parse([]byte(`listen: {https: ":1"}
services:
- name: shop
  idle:
    after: soon
  replicas:
    min: 3
    max: 2
- process: {command: [shop]}
- name: shop
  process:
    command: [shop]
    prot: 1
lisen: {}
`), "/srv")
	want := strings.Join([]string{
		`line 1: listen.https: an https listener needs a certificate; name its files in tls.cert and tls.key`,
		`line 3: services[0].process: missing; it says what to run`,
		`line 5: services[0].idle.after: "soon" is not a duration; use a number and a unit, such as 30s or 5m`,
		`line 6: services[0].replicas: min, 3, is more than max, 2`,
		`line 9: services[1].name: missing; it is what the service is called`,
		`line 10: services[2].name: shop is the name of services[0], too (line 3)`,
		`line 13: services[2].process.prot: unknown field; did you mean "port"?`,
		`line 14: lisen: unknown field; did you mean "listen"?`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDistanceCountsWhatFingersGetWrong(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"idle", "idle", 0},
		{"idel", "idle", 1},
		{"ide", "idle", 1},
		{"iddle", "idle", 1},
		{"odle", "idle", 1},
		{"", "idle", 4},
		{"idle", "", 4},
		{"hold", "idle", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
