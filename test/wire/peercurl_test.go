package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// output runs a program to its end and returns what it prints. It must not fail.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, need(t, name), args...).Output()
	if err != nil {
		message := ""
		if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // not wrapped
			message = string(e.Stderr)
		}
		t.Errorf("%s %s: %v: %s\n%s", name, strings.Join(args, " "), err, out, message)
	}
	return string(out)
}

// curling is one use of curl. What it writes is "\n", and then code, version of HTTP, connections made and bytes sent.
type curling struct {
	name   string
	args   []string
	secure bool
	want   string // method target length version of what is seen, then what curl writes; "-" for seen: no body
}

func TestCurlGetsWhatItAsksFor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "upload")
	if err := os.WriteFile(file, bodyBytes(300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []curling{
		{name: "HTTP 1.0", args: []string{"--http1.0", "URL/a?b"}, want: "GET /a?b 0 200 1.1 1 0"},
		{name: "HTTP 1.0, chunks", args: []string{"--http1.0", "-HX-Shape: chunked", "URL/a"}, want: "GET /a 0 200 1.1 1 0"},
		{name: "HTTP 1.0, a body", args: []string{"--http1.0", "-da=b", "URL/a"}, want: "POST /a 3 200 1.1 1 3"},
		{name: "HTTP 1.1", args: []string{"--http1.1", "URL/a//b/%2e%2e/c"}, want: "GET /a//b/%2e%2e/c 0 200 1.1 1 0"},
		{name: "dots", args: []string{"--path-as-is", "URL/a/../b/./c"}, want: "GET /a/../b/./c 0 200 1.1 1 0"},
		{name: "HEAD", args: []string{"-I", "URL/"}, want: "- 200 1.1 1 0"},
		{name: "204", args: []string{"-HX-Shape: 204", "URL/"}, want: "- 204 1.1 1 0"},
		{name: "304", args: []string{"-HX-Shape: 304", "URL/"}, want: "- 304 1.1 1 0"},
		{name: "chunks", args: []string{"-HX-Shape: chunked", "URL/"}, want: "GET / 0 200 1.1 1 0"},
		{name: "trailers", args: []string{"-HX-Shape: trailers", "URL/"}, want: "GET / 0 200 1.1 1 0"},
		{name: "hints", args: []string{"-HX-Shape: hints", "URL/"}, want: "GET / 0 200 1.1 1 0"},
		{name: "the end of the connection", args: []string{"-HX-Shape: close", "URL/"}, want: "GET / 0 200 1.1 1 0"},
		{name: "a form", args: []string{"-da=b&c=d", "URL/"}, want: "POST / 7 200 1.1 1 7"},
		{name: "a file", args: []string{"-T" + file, "URL/file"}, want: "PUT /file 300000 200 1.1 1 300000"},
		{name: "a file as it comes", args: []string{"-T" + file, "-HTransfer-Encoding: chunked", "URL/file"}, want: "PUT /file 300000 200 1.1 1"},
		{name: "Expect", args: []string{"--expect100-timeout", "20", "-HExpect: 100-continue", "-da=b", "URL/"}, want: "POST / 3 200 1.1 1 3"},
		{name: "an upgrade to HTTP 2 that is not had", args: []string{"--http2", "URL/"}, want: "GET / 0 200 1.1 1 0"},
		{name: "an upgrade to HTTP 2 with a body", args: []string{"--http2", "-da=b", "URL/"}, want: "POST / 3 200 1.1 1 3"},
		{name: "HTTP 2", args: []string{"--http2-prior-knowledge", "URL/a?b"}, want: "GET /a?b 0 200 2 1 0"},
		{name: "HTTP 2, a file", args: []string{"--http2-prior-knowledge", "-T" + file, "URL/file"}, want: "PUT /file 300000 200 2 1 300000"},
		{name: "TLS with HTTP 1.1", secure: true, args: []string{"--http1.1", "URL/a?b"}, want: "GET /a?b 0 200 1.1 1 0"},
		{name: "TLS with HTTP 1.0", secure: true, args: []string{"--http1.0", "--no-alpn", "-HX-Shape: chunked", "URL/a?b"}, want: "GET /a?b 0 200 1.1 1 0"},
		{name: "TLS with HTTP 1.1, a file", secure: true, args: []string{"--http1.1", "-T" + file, "URL/file"}, want: "PUT /file 300000 200 1.1 1 300000"},
		{name: "TLS with HTTP 2", secure: true, args: []string{"--http2", "URL/a?b"}, want: "GET /a?b 0 200 2 1 0"},
		{name: "TLS without ALPN", secure: true, args: []string{"--no-alpn", "URL/a?b"}, want: "GET /a?b 0 200 1.1 1 0"},
	}
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			var certificate string
			p := newProxy(t, form, func(c *activator.Config, _ *scaling.Service) { certificate = c.Certificate })
			p.serve(tell)
			_, port, _ := net.SplitHostPort(p.tlsAddr)
			for _, c := range all {
				t.Run(c.name, func(t *testing.T) {
					base := "http://" + p.addr
					args := []string{"-sS", "--max-time", "20", "-HHost: " + host, "-w", `\n%{http_code} %{http_version} %{num_connects} %{size_upload}`}
					if c.secure {
						base = "https://example.com:" + port
						args = append(args, "--cacert", certificate, "--resolve", "example.com:"+port+":127.0.0.1")
					}
					for _, a := range c.args {
						args = append(args, strings.Replace(a, "URL", base, 1))
					}
					seen, written := curled(t, output(t, "curl", args...), strings.HasPrefix(c.want, "-"))
					if got := seen + " " + written; !strings.HasPrefix(got, c.want) {
						t.Errorf("got %s, want %s", got, c.want)
					}
				})
			}
			t.Run("many on one connection", func(t *testing.T) {
				args := []string{"-sS", "--max-time", "20", "-HHost: " + host, "-w", `\n%{num_connects}\n`}
				made := 0
				for i := range 20 {
					args = append(args, fmt.Sprintf("http://%s/%d", p.addr, i))
				}
				for line := range strings.SplitSeq(output(t, "curl", args...), "\n") {
					made += strings.Count(line, "1") * (1 - min(1, strings.Count(line, "{")))
				}
				if made != 1 {
					t.Errorf("%d connections for 20 requests", made)
				}
			})
			t.Run("unparsed", func(t *testing.T) {
				out := output(t, "curl", "-sS", "--raw", "-HX-Shape: chunked", "-HHost: "+host, p.url("/"))
				if !strings.HasSuffix(out, "\r\n0\r\n\r\n") {
					t.Errorf("%q", out)
				}
				if out = output(t, "curl", "-sS", "--raw", "--http1.0", "-HX-Shape: chunked", "-HHost: "+host, p.url("/")); !strings.HasPrefix(out, "{") || !strings.HasSuffix(out, "}") {
					t.Errorf("%q", out)
				}
			})
		})
	}
}

// curled takes curl's output apart: what the application saw, and what curl wrote of it.
func curled(t *testing.T, out string, bodiless bool) (seen, written string) {
	t.Helper()
	i := strings.LastIndexByte(out, '\n')
	body, written := out[:max(i, 0)], out[i+1:]
	written = strings.Replace(written, " 1 ", " 1.1 ", strings.Count(written[:min(6, len(written))], " 1 ")) // an answer to HTTP/1.0 may be either
	if bodiless {
		return "-", written
	}
	var s sighting
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Errorf("%q: %v", body, err)
	}
	return fmt.Sprintf("%s %s %d", s.Method, s.Target, s.Length), written
}
