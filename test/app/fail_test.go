package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestCrashEndsABodyInItsMiddle(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		for _, how := range []string{"reset", "fin"} {
			for _, framing := range []string{"", "&cl=1m"} {
				url := app.URL("/crash?after=40k&how=" + how + framing)
				resp, err := c.Do(request(t, "GET", url, nil))
				if err != nil {
					t.Fatalf("%s: %v", url, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != letters(40<<10) || err == nil {
					t.Errorf("%s: %d bytes, %v", url, len(body), err)
				}
				if want := int64(1 << 20); framing != "" && resp.ContentLength != want || framing == "" && resp.ContentLength >= 0 {
					t.Errorf("%s: Content-Length %d", url, resp.ContentLength)
				}
				if reset := errors.Is(err, syscall.ECONNRESET); resp.ProtoMajor == 1 && reset != (how == "reset") {
					t.Errorf("%s: %v", url, err)
				}
				if reset := strings.Contains(fmt.Sprint(err), "stream error"); resp.ProtoMajor == 2 && reset != (how == "reset") {
					t.Errorf("%s: %v", url, err)
				}
			}
		}
	})
}

func TestCrashExitsInMidBody(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		resp, err := c.Do(request(t, "GET", app.URL("/crash?after=10&cl=20&code=7"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); string(body) != letters(10) || err == nil {
			t.Errorf("body %q, %v", body, err)
		}
		if code := app.ExitCode(); code != 7 {
			t.Errorf("status %d", code)
		}
	})
}

func TestCrashDuringAnUpload(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		in, out := io.Pipe() // nothing is ever sent
		defer out.Close()
		resp, err := c.Do(request(t, "POST", app.URL("/crash?after=10&how=fin"), in))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); string(body) != letters(10) || err == nil {
			t.Errorf("body %q, %v", body, err)
		}
	})
}

func TestCrashBeforeAnyByteOfTheAnswer(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	for _, how := range []string{"reset", "fin"} {
		c := dial(t, app)
		fmt.Fprintf(c, "GET /crash?headers=0&how=%s HTTP/1.1\r\nHost: app\r\n\r\n", how)
		got, err := io.ReadAll(c)
		if reset := errors.Is(err, syscall.ECONNRESET); len(got) > 0 || reset != (how == "reset") {
			t.Errorf("%s: %q, %v", how, got, err)
		}
	}
}

func TestCrashOnReusedConnectionsAlone(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	url := app.URL("/crash?headers=0&how=fin&reused=1")
	c := http1(t)
	if resp, _ := get(t, c, url); resp.StatusCode != 200 {
		t.Errorf("status %d on a new connection", resp.StatusCode)
	}
	if resp, err := c.Do(request(t, "POST", url, nil)); err == nil { // POST: net/http would send a GET again
		t.Errorf("status %d on the same connection", resp.StatusCode)
	}
}

func TestEarly413IsReadableAlthoughTheBodyIsNot(t *testing.T) {
	overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
		in, out := io.Pipe() // nothing is ever sent
		defer out.Close()
		resp, body := do(t, c, request(t, "POST", app.URL("/early-413"), in))
		if resp.StatusCode != 413 || body != "too large\n" {
			t.Errorf("status %d, body %q", resp.StatusCode, body)
		}
	})
}

func TestEarly413ThenReset(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	c := dial(t, app)
	fmt.Fprint(c, "POST /early-413?then=reset HTTP/1.1\r\nHost: app\r\nContent-Length: 10000000\r\n\r\nthe beginning")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(body) != "too large\n" || err != nil {
		t.Errorf("status %d, body %q, %v", resp.StatusCode, body, err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("then %v", err)
	}
}

func TestStallNeverAnswersAndSeesTheClientLeave(t *testing.T) {
	for _, query := range []string{"", "?read=0"} {
		overBoth(t, func(t *testing.T, app *apptest.App, c *http.Client) {
			in, out := io.Pipe()
			defer out.Close()
			if query == "" {
				out.Close()
			}
			left := make(chan struct{})
			req := request(t, "POST", app.URL("/stall"+query), in)
			ctx, leave := contextWithCancel(t)
			go func() {
				defer close(left)
				if resp, err := c.Do(req.WithContext(ctx)); err == nil {
					resp.Body.Close()
					t.Errorf("status %d", resp.StatusCode)
				}
			}()
			observer := http1(t)
			eventually(t, "stalled", func() bool { return counts(t, app, observer)["inFlight"] == 1 })
			leave()
			out.CloseWithError(io.ErrClosedPipe) // net/http's client waits for its reader, cancelled or not
			<-left
			eventually(t, "ended", func() bool { return counts(t, app, observer)["inFlight"] == 0 })
			if got := counts(t, app, observer)["cancelled"]; got != 1 {
				t.Errorf("%d cancelled", got)
			}
		})
	}
}
