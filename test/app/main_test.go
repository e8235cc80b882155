package main

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestListenDelayRefusesUntilThen(t *testing.T) {
	t.Parallel()
	app := apptest.Launch(t, "--listen-delay=100ms")
	if !refuses(app) {
		t.Error("not refused at first")
	}
	<-app.Listening()
	get(t, http1(t), app.URL("/"))
}

func TestReadyDelayAnswers503UntilThen(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--ready-delay=100ms")
	c := http1(t)
	if resp, _ := get(t, c, app.URL("/healthz")); resp.StatusCode != 503 {
		t.Errorf("status %d at first", resp.StatusCode)
	}
	if resp, _ := get(t, c, app.URL("/")); resp.StatusCode != 200 {
		t.Errorf("status %d for a page", resp.StatusCode)
	}
	eventually(t, "ready", func() bool {
		resp, _ := get(t, c, app.URL("/healthz"))
		return resp.StatusCode == 200
	})
}

func TestWithoutReadyDelayTheFirstCheckSucceeds(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	if resp, body := get(t, http1(t), app.URL("/healthz")); resp.StatusCode != 200 || body != "ok\n" {
		t.Errorf("status %d, body %q", resp.StatusCode, body)
	}
}

func TestHeaderDelayHoldsEveryAnswerBack(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--header-delay=50ms")
	for _, path := range []string{"/", "/healthz", "/status/404"} {
		start := time.Now()
		get(t, http1(t), app.URL(path))
		if took := time.Since(start); took < 50*time.Millisecond {
			t.Errorf("%s took %v", path, took)
		}
	}
}

func TestCrashAtStartExitsWithLinesOnStderr(t *testing.T) {
	t.Parallel()
	for arg, code := range map[string]int{"--crash-at-start": 1, "--crash-at-start=42": 42, "--crash-at-start=0": 0} {
		app := apptest.Launch(t, arg)
		if got := app.ExitCode(); got != code || app.Addr != "" {
			t.Errorf("%s: status %d, address %q", arg, got, app.Addr)
		}
		if lines := strings.Count(app.Stderr(), "\n"); lines < 3 {
			t.Errorf("%s: %d lines on stderr", arg, lines)
		}
	}
}

func TestCrashAfterExitsWhileServing(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--crash-after=50ms")
	if _, err := http1(t).Do(request(t, "GET", app.URL("/stall"), nil)); err == nil {
		t.Error("an answer came")
	}
	if code := app.ExitCode(); code != 1 {
		t.Errorf("status %d", code)
	}
}

func TestSIGTERMFinishesOpenRequestsFirst(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	resp, err := http1(t).Do(request(t, "GET", app.URL("/delay?body=100ms"), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := app.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "ok\n" || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	if code := app.ExitCode(); code != 0 {
		t.Errorf("status %d", code)
	}
}

func TestSIGTERMDoesNotWaitForIdleConnections(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	get(t, http1(t), app.URL("/"))
	get(t, h2c(t), app.URL("/"))
	start := time.Now()
	if err := app.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, took := app.ExitCode(), time.Since(start); code != 0 || took >= 5*time.Second {
		t.Errorf("status %d after %v", code, took)
	}
}

func TestSIGTERMEndsAGRPCServer(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--protocol=grpc")
	if err := app.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := app.ExitCode(); code != 0 {
		t.Errorf("status %d", code)
	}
}

func TestIgnoreSIGTERMStays(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--ignore-sigterm")
	for range 3 {
		if err := app.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		get(t, http1(t), app.URL("/delay?headers=20ms"))
	}
	if err := app.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := app.ExitCode(); code != 0 {
		t.Errorf("status %d on SIGINT", code)
	}
}

func TestPortInUseIsSaidOnStderr(t *testing.T) {
	t.Parallel()
	first := apptest.Start(t)
	_, port, _ := strings.Cut(first.Addr, ":")
	second := apptest.Launch(t, "--port="+port)
	if code := second.ExitCode(); code != 1 || !strings.Contains(second.Stderr(), "address already in use") {
		t.Errorf("status %d, stderr %q", code, second.Stderr())
	}
}

func TestExitAnswersAndEndsWithTheStatus(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t)
	if resp, _ := get(t, h2c(t), app.URL("/exit?code=9")); resp.StatusCode != 200 {
		t.Errorf("answered with %d", resp.StatusCode)
	}
	if code := app.ExitCode(); code != 9 {
		t.Errorf("status %d", code)
	}
}

func TestLingerGoesOnServingAndSaysSo(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--linger=1s")
	if resp, _ := get(t, http1(t), app.URL("/")); resp.Header.Get("X-App-Terminating") != "" {
		t.Error("it is ending before it was told to")
	}
	if err := app.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it says that it ends", func() bool {
		resp, _ := get(t, http1(t), app.URL("/")) // on a new connection
		return resp.StatusCode == 200 && resp.Header.Get("X-App-Terminating") == "true"
	})
	if code := app.ExitCode(); code != 0 {
		t.Errorf("status %d", code)
	}
}

func TestDrainBoundsOpenRequests(t *testing.T) {
	t.Parallel()
	app := apptest.Start(t, "--drain=50ms")
	c := http1(t)
	answer := make(chan error, 1)
	go func() {
		_, err := c.Do(request(t, "GET", app.URL("/stall"), nil))
		answer <- err
	}()
	eventually(t, "it has the request", func() bool { return counts(t, app, http1(t))["inFlight"] == 1 })
	if err := app.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("an answer came")
	}
	app.ExitCode()
}
