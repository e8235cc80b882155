package wire

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// need returns the path of a program, which hack/setup installs.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil { // Debian keeps servers out of an ordinary user's path
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skipf("%v: hack/setup test installs it", err)
	}
	return path
}

// program runs a program until the test ends. It returns the first line that it prints, if it is to print one.
func program(t *testing.T, prints bool, name string, args ...string) (line string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, name), args...)
	log := new(lockedBuffer)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // of what was killed
		if t.Failed() {
			t.Logf("%s: %s", name, log)
		}
	})
	if !prints {
		return ""
	}
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s printed %q: %v %s", name, line, err, log)
	}
	return strings.TrimSpace(line)
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String implements fmt.Stringer.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

// startNginx runs nginx with what stands in its http block, and returns when it accepts connections.
func startNginx(t *testing.T, address, config string) {
	t.Helper()
	dir := t.TempDir()
	var temporary strings.Builder
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s/%s;\n", what, dir, what)
	}
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; master_process off; pid %[1]s/pid; error_log stderr;\nevents { worker_connections 500; }\nhttp {\naccess_log off;\n%[2]s%[3]s}\n",
		dir, &temporary, config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, false, "nginx", "-c", file, "-p", dir)
	awaitPeer(t, address)
}

// startHAProxy runs HAProxy with these frontends and backends, and returns when it accepts connections.
func startHAProxy(t *testing.T, address, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := "global\n maxconn 500\n tune.bufsize 131072\ndefaults\n mode http\n option abortonclose\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n timeout tunnel 10s\n" + config
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, false, "haproxy", "-db", "-f", file)
	awaitPeer(t, address)
}

func awaitPeer(t *testing.T, address string) {
	t.Helper()
	eventually(t, "a peer at "+address, func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// sighting is what an application has seen of a request. Fields are names and values, in turn.
type sighting struct {
	Method     string   `json:"method"`
	Target     string   `json:"target"`
	Version    string   `json:"version"`
	Fields     []string `json:"fields"`
	Trailers   []string `json:"trailers"`
	Length     int      `json:"length"`
	Hash       string   `json:"hash"`
	Connection int      `json:"connection"` // the number of the one that it came on
	Malformed  int      `json:"malformed"`  // requests so far that could not be parsed
}

// field returns the values of a field, whatever the case of its name.
func (s *sighting) field(name string) string {
	var values []string
	for pair := range slices.Chunk(s.Fields, 2) {
		if strings.EqualFold(pair[0], name) {
			values = append(values, pair[1])
		}
	}
	return strings.Join(values, "|")
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// origin is an application that tells what it has seen, as testdata/echo.js does.
func origin(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(tell))
	t.Cleanup(s.Close)
	return s
}

func tell(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	seen := sighting{Method: r.Method, Target: r.RequestURI, Version: r.Proto[len("HTTP/"):], Length: len(body), Hash: hashOf(body)}
	for name, values := range r.Header {
		seen.Fields = append(seen.Fields, name, strings.Join(values, "|"))
	}
	for name, values := range r.Trailer {
		seen.Trailers = append(seen.Trailers, name, strings.Join(values, "|"))
	}
	text, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	switch r.Header.Get("X-Shape") {
	case "204":
		w.WriteHeader(http.StatusNoContent)
		return
	case "304":
		w.Header().Set("Content-Length", "12345")
		w.WriteHeader(http.StatusNotModified)
		return
	case "chunked":
		_, _ = w.Write(text[:10])
		_ = http.NewResponseController(w).Flush()
		text = text[10:]
	case "trailers":
		w.Header().Set("Trailer", "X-After")
		defer w.Header().Set("X-After", "all")
	case "close":
		w.Header().Set("Connection", "close")
	case "hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
	}
	_, _ = w.Write(text)
}
