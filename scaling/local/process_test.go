package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestAProcessIsGivenItsPortEnvironmentAndDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("INHERITED", "yes")
	t.Setenv("REPLACED", "no")
	definition := define("shop", Process{
		Command: []string{
			"sh", "-c", `echo "arg=$1 port=$PORT url=$URL inherited=$INHERITED replaced=$REPLACED dir=$PWD"; sleep 1000`,
			"sh", "--port={{port}}",
		},
		Env: map[string]string{"URL": "http://127.0.0.1:{{port}}/", "REPLACED": "yes", "PORT": "1"},
		Dir: dir,
	})
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("process started")
	_, port, _ := strings.Cut(portOf(t, backend, definition), ":")
	entry := logs.await("arg=--port=" + port + " port=" + port + " url=http://127.0.0.1:" + port + "/ inherited=yes replaced=yes dir=" + dir)
	if entry.Service != "default/shop" || entry.Stream != "stdout" || entry.PID == 0 || entry.Level != "info" {
		t.Errorf("got %+v, want the fields of the service", entry)
	}
}

// portOf returns the address of the newest replica, ready or not.
func portOf(t *testing.T, backend *Backend, definition *Definition) string {
	t.Helper()
	s := (*backend.services.Load())[definition.Service.Key]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas[len(s.replicas)-1].endpoint.Address
}

func TestARelativeCommandIsTakenFromTheDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "serve"), []byte("#!/bin/sh\necho here\nsleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	definition := define("shop", Process{Command: []string{"./serve"}, Dir: dir})
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("here")
}

func TestBothStreamsAreLogged(t *testing.T) {
	definition := define("shop", shell(`echo out; echo err >&2; printf 'no newline'; exit 0`))
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	if e := logs.await("out"); e.Stream != "stdout" {
		t.Errorf("got %+v, want stdout", e)
	}
	if e := logs.await("err"); e.Stream != "stderr" || e.Level != "info" {
		t.Errorf("got %+v, want stderr at level info", e)
	}
	logs.await("no newline")
}

func TestAProgramThatCannotBeStartedIsAFailureAtOnce(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\nsleep 1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, []byte("\x7fELF of no machine"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		process Process
		reason  scaling.Reason
		names   string
	}{
		"not in PATH":      {Process{Command: []string{"dormouse-no-such-program"}}, scaling.ReasonNotFound, "dormouse-no-such-program"},
		"no such file":     {Process{Command: []string{"./serve"}, Dir: dir}, scaling.ReasonNotFound, "./serve"},
		"no such absolute": {Process{Command: []string{dir + "/serve"}}, scaling.ReasonNotFound, dir + "/serve"},
		"not executable":   {Process{Command: []string{plain}}, scaling.ReasonConfig, plain},
		"no program":       {Process{Command: []string{binary}}, scaling.ReasonConfig, binary},
		"a directory":      {Process{Command: []string{dir}}, scaling.ReasonConfig, dir},
		"no directory":     {Process{Command: []string{"sleep", "1000"}, Dir: dir + "/gone"}, scaling.ReasonConfig, dir + "/gone"},
		"a file for one":   {Process{Command: []string{"sleep", "1000"}, Dir: plain}, scaling.ReasonConfig, plain},
	} {
		t.Run(name, func(t *testing.T) {
			definition := define("shop", c.process)
			backend, _ := runBackend(t, definition)
			start := time.Now()
			scale(t, backend, definition, 1)
			failure := awaitFailure(t, backend, definition)
			if failure.Reason != c.reason || !strings.Contains(failure.Message, c.names) {
				t.Errorf("got %v, want %s with %q", failure, c.reason, c.names)
			}
			if took := time.Since(start); took > firstPause {
				t.Errorf("it took %v, as long as a restart", took)
			}
		})
	}
}

func TestAProgramThatWasMissingIsFoundWhenAskedAgain(t *testing.T) {
	dir := t.TempDir()
	definition := define("shop", Process{Command: []string{"./serve"}, Dir: dir})
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	_ = awaitFailure(t, backend, definition)
	if err := os.WriteFile(filepath.Join(dir, "serve"), []byte("#!/bin/sh\necho here\nsleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	scale(t, backend, definition, 1)
	logs.await("here")
	await(t, backend, definition, "the failure to go", func(e *scaling.Endpoints) bool { return e.Failure == nil && len(e.Pending) == 1 })
}
