package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestBytesSendsThisManyLetters(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for query, want := range map[string]int{
			"": 0, "n=0": 0, "n=1": 1, "n=27": 27, "n=53247": 53247, "n=1m": 1 << 20, "n=100&chunk=7": 100, "n=70k&delay=1ms": 70 << 10,
		} {
			for _, cl := range []string{"", "&cl=1"} {
				resp, body := get(t, c, app.URL("/bytes?"+query+cl))
				if body != letters(want) {
					t.Errorf("%s%s: %d bytes, or not the right ones", query, cl, len(body))
				}
				if length, want := resp.ContentLength, int64(want); (cl == "" && length >= 0) || (cl != "" && length != want) {
					t.Errorf("%s%s: Content-Length %d", query, cl, length)
				}
			}
		}
	})
}

func TestBytesFlushesEachChunk(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		resp, err := c.Do(request(t, "GET", app.URL("/bytes?n=8&chunk=4&delay=1h"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		chunk := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, chunk); err != nil || string(chunk) != "abcd" {
			t.Errorf("first chunk %q, %v", chunk, err)
		}
	})
}

func TestBytesTakesConstantMemory(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		resp, err := c.Do(request(t, "GET", app.URL("/bytes?n=128m"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); n != 128<<20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if peak := peakMemory(t, app.Pid()); peak > 64<<20 {
			t.Errorf("the app's memory reached %d MiB", peak>>20)
		}
	})
}

// peakMemory is the most resident memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func TestBadParametersAre400(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	for _, path := range []string{
		"/bytes?n=x", "/bytes?n=-1", "/bytes?n=1kk", "/bytes?n=9999999999g", "/bytes?n=1&delay=3", "/bytes?cl=2", "/sse?n=x", "/delay?body=1",
		"/early-413?then=x", "/stall?read=2", "/crash?how=x", "/refuse?for=x", "/exit?code=x", "/early-hints?delay=x", "/status/600", "/status/x",
	} {
		if resp, _ := get(t, http1(t), app.URL(path)); resp.StatusCode != 400 {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
}

func TestEchoIsFullDuplex(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		in, out := io.Pipe()
		resp, err := c.Do(request(t, "POST", app.URL("/echo"), in)) // headers come before the first byte is sent
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for _, part := range []string{"first", "second"} {
			if _, err := io.WriteString(out, part); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(part))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != part {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		out.Close()
		if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
			t.Errorf("then %q, %v", rest, err)
		}
	})
}

func TestEchoReturnsBodiesOfAnySize(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for _, n := range []int{0, 1, 1 << 15, 10 << 20} {
			if _, body := do(t, c, request(t, "POST", app.URL("/echo"), strings.NewReader(letters(n)))); body != letters(n) {
				t.Errorf("%d bytes came back as %d, or as others", n, len(body))
			}
		}
	})
}

func TestEchoAsksForTheBodyWhenExpected(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	c := http1(t)
	c.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
	req := request(t, "POST", app.URL("/echo"), strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	if _, body := do(t, c, req); body != "body" {
		t.Errorf("got %q", body)
	}
}

func TestUploadTellsWhatItGot(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		_, body := do(t, c, request(t, "PUT", app.URL("/upload"), strings.NewReader(letters(5<<20))))
		got := decode[struct {
			Bytes  int
			SHA256 string
		}](t, body)
		want := sha256.Sum256([]byte(letters(5 << 20)))
		if got.Bytes != 5<<20 || got.SHA256 != hex.EncodeToString(want[:]) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestUploadCountsTruncatedBodies(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		in, out := io.Pipe()
		go func() {
			io.WriteString(out, "only the beginning")
			out.CloseWithError(io.ErrUnexpectedEOF)
		}()
		if resp, err := c.Do(request(t, "POST", app.URL("/upload"), in)); err == nil {
			resp.Body.Close()
			t.Errorf("status %d", resp.StatusCode)
		}
		eventually(t, "seen to its end", func() bool {
			got := counts(t, app, c)
			return got["requests"] == 1 && got["inFlight"] == 0
		})
		if got := counts(t, app, c); got["truncated"] != 1 || got["uploads"] != 0 || got["cancelled"] != 1 {
			t.Errorf("got %v", got)
		}
	})
}
