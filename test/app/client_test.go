package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// What the tests of this package use to be clients.

// http1 and h2c are clients of one protocol, with connections of their own.
func http1(t *testing.T) *http.Client { return client(t, (*http.Protocols).SetHTTP1) }

func h2c(t *testing.T) *http.Client { return client(t, (*http.Protocols).SetUnencryptedHTTP2) }

func client(t *testing.T, allow func(*http.Protocols, bool)) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, MaxIdleConnsPerHost: 100}
	allow(transport.Protocols, true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// overBoth runs a test over HTTP/1.1 and over h2c, against one app each.
func overBoth(t *testing.T, test func(t *testing.T, app *apptest.App, c *http.Client), args ...string) {
	for name, newClient := range map[string]func(*testing.T) *http.Client{"http1": http1, "h2c": h2c} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, apptest.Start(t, args...), newClient(t))
		})
	}
}

// get returns an answer and its whole body.
func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	return do(t, c, request(t, "GET", url, nil))
}

// request makes a request that ends with the test.
func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the body of %s after %d bytes: %v", req.URL, len(body), err)
	}
	return resp, string(body)
}

// getJSON decodes an answer.
func getJSON[T any](t *testing.T, c *http.Client, url string) T {
	t.Helper()
	_, body := get(t, c, url)
	return decode[T](t, body)
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("decode %q: %v", body, err)
	}
	return v
}

// counts is what /count says now.
func counts(t *testing.T, app *apptest.App, c *http.Client) map[string]int64 {
	t.Helper()
	return getJSON[map[string]int64](t, c, app.URL("/count"))
}

// eventually fails the test if the condition does not come true within 10 s.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick, timeout := time.NewTicker(2*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// dial opens a connection of its own, whose reads and writes fail after 10 s.
func dial(t *testing.T, app *apptest.App) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", app.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// refuses says whether connections to the app are refused.
func refuses(app *apptest.App) bool {
	c, err := net.Dial("tcp", app.Addr)
	if err == nil {
		c.Close()
	}
	return err != nil && strings.Contains(err.Error(), "connection refused")
}

// letters is what /bytes answers.
func letters(n int) string {
	return strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1)[:n]
}

// TestDocListsEveryFlagAndPath keeps doc.go complete.
func TestDocListsEveryFlagAndPath(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var usage strings.Builder
	if _, err := parseConfig([]string{"--help"}, os.LookupEnv, &usage); err == nil {
		t.Fatal("--help is not an error")
	}
	for line := range strings.Lines(usage.String()) {
		if name, ok := strings.CutPrefix(line, "  -"); ok {
			name = strings.Fields(name)[0]
			if !strings.Contains(string(doc), "\t--"+name) {
				t.Errorf("doc.go does not list --%s", name)
			}
		}
	}
	for path := range newServer(config{}, nil, nil).handlers {
		if !strings.Contains(string(doc), "\n//\t"+path) {
			t.Errorf("doc.go does not list %s", path)
		}
	}
}
