// Package apptest builds test/app and runs it as a child process, for tests that want it without Dormouse in front or as its backend.
package apptest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Binary returns the path of a built test/app: that of $DORMOUSE_TEST_APP, where this is set, else one built from this module's source once per
// test process, into the user's cache directory.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("DORMOUSE_TEST_APP"); path != "" {
		return path
	}
	path, err := build()
	if err != nil {
		t.Fatalf("build test/app: %v", err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // "once per test process" is global by nature
	const pkg = "github.com/dormouse-dev/dormouse/test/app"
	source, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("find its source: %w", describe(err))
	}
	// The test's result depends on these files. Having read the directory, go test does not take it from its cache when they have changed.
	dir := strings.TrimSpace(string(source))
	if _, err := os.ReadDir(dir); err != nil {
		return "", err
	}

	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	// One place per source tree, so that go build, finding its last result there, has nothing to do.
	target := filepath.Join(cache, "dormouse", strings.ReplaceAll(dir, string(filepath.Separator), "-"), "app")
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(target + ".lock") // the tests of other packages run at the same time
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := exec.Command("go", "build", "-o", target, pkg).Output(); err != nil {
		return "", describe(err)
	}
	return target, nil
})

// describe adds what a command wrote to stderr.
func describe(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return err
}

// lock takes an advisory lock on a file, made if need be.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}

// App is a running test/app, or one that has ended. Its methods may be called from any goroutine.
type App struct {
	// Addr is where it listens, such as "127.0.0.1:40123"; "" if it ended before it had an address.
	Addr string

	cmd       *exec.Cmd
	stdout    log
	stderr    log
	addressed chan struct{} // closed when it has written its address
	listening chan struct{} // closed when it listens
	exited    chan struct{} // closed when it has ended
}

// Start runs the app with the given flags and returns when it listens. It chooses a free port where no --port is given, and takes nothing from
// the test's own environment but what is not meant for it. At the test's end the app is killed; what it wrote is logged if the test failed.
func Start(t testing.TB, args ...string) *App {
	t.Helper()
	app := Launch(t, args...)
	select {
	case <-app.listening:
	case <-app.exited:
		t.Fatalf("test/app ended before it listened, with %v:\n%s", app.cmd.ProcessState, app.Stderr())
	}
	return app
}

// Launch is Start without waiting: it returns as soon as the app has its port, on which it may not listen yet, or has ended.
func Launch(t testing.TB, args ...string) *App {
	t.Helper()
	app := &App{
		cmd:       exec.Command(Binary(t), args...),
		addressed: make(chan struct{}),
		listening: make(chan struct{}),
		exited:    make(chan struct{}),
	}
	app.stdout.see = app.see
	app.cmd.Stdout, app.cmd.Stderr = &app.stdout, &app.stderr
	app.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "APP_") || strings.HasPrefix(v, "PORT=") })
	app.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that dies cleans nothing up
	if err := app.cmd.Start(); err != nil {
		t.Fatalf("start test/app: %v", err)
	}
	go func() {
		app.cmd.Wait() // its error is in ProcessState
		close(app.exited)
	}()
	t.Cleanup(func() {
		app.cmd.Process.Kill()
		<-app.exited
		if t.Failed() {
			t.Logf("test/app %q wrote:\n%s%s", args, app.stdout.String(), app.stderr.String())
		}
	})
	select {
	case <-app.addressed:
	case <-app.exited:
	}
	return app
}

// URL is the http address of a path, such as "/bytes?n=1m".
func (a *App) URL(path string) string { return "http://" + a.Addr + path }

// Pid is the process's id.
func (a *App) Pid() int { return a.cmd.Process.Pid }

// Listening is closed when the app listens for the first time.
func (a *App) Listening() <-chan struct{} { return a.listening }

// Exited is closed when the process has ended.
func (a *App) Exited() <-chan struct{} { return a.exited }

// ExitCode waits for the process's end and returns its status; -1 where a signal ended it.
func (a *App) ExitCode() int {
	<-a.exited
	return a.cmd.ProcessState.ExitCode()
}

// Signal sends a signal; os.ErrProcessDone if the process has ended.
func (a *App) Signal(sig os.Signal) error { return a.cmd.Process.Signal(sig) }

// Stderr is what the app has written to stderr so far.
func (a *App) Stderr() string { return a.stderr.String() }

// see learns from a line of stdout.
func (a *App) see(line string) {
	if addr, ok := strings.CutPrefix(line, "address "); ok {
		a.Addr = addr
		close(a.addressed)
	}
	if line == "listening" {
		close(a.listening)
	}
}

// log keeps what a process writes and shows it line by line.
type log struct {
	see func(line string) // or nil

	mu   sync.Mutex // guards the following
	text bytes.Buffer
	seen int
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	for l.see != nil {
		line, _, whole := strings.Cut(l.text.String()[l.seen:], "\n")
		if !whole {
			break
		}
		l.see(line)
		l.seen += len(line) + 1
	}
	return len(p), nil
}

// String is all that was written.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
