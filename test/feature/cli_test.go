package feature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quickExit spares the race detector's pause of a second before the process ends.
const quickExit = "GORACE=atexit_sleep_ms=0"

// execution is what came of a command line.
type execution struct {
	status         int
	stdout, stderr string
}

// runActivator runs a command line that ends by itself. The environment is the test's and variables, as NAME=VALUE.
func runActivator(t testing.TB, variables []string, args ...string) execution {
	t.Helper()
	binary, err := activatorBinary()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(append(os.Environ(), quickExit), variables...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	err = cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 ["} {
		if strings.Contains(stderr.String(), bad) {
			t.Errorf("stderr has %q: %s", bad, &stderr)
		}
	}
	return execution{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// fileOf writes a configuration file.
func fileOf(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const validFile = `listen: {http: "127.0.0.1:0", control: "127.0.0.1:0", metrics: "127.0.0.1:0"}
services:
- name: shop
  process: {command: [sleep, "600"]}
`

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	e := runActivator(t, nil, "version")
	if e.status != 0 || !regexp.MustCompile(`^activator \S+ \(commit \S+, go1\.\S+( .*)?\)\n$`).MatchString(e.stdout) || e.stderr != "" {
		t.Errorf("got %+v", e)
	}
}

func TestValidateAcceptsAGoodFile(t *testing.T) {
	t.Parallel()
	file := fileOf(t, validFile)
	if e := runActivator(t, nil, "validate", "-f", file); e.status != 0 || !strings.HasPrefix(e.stdout, file+": 1 service") || e.stderr != "" {
		t.Errorf("got %+v", e)
	}
}

func TestValidateNamesEveryMistakeWithItsLine(t *testing.T) {
	t.Parallel()
	file := fileOf(t, `listen: {http: "127.0.0.1:0", contrl: "127.0.0.1:0"}
services:
- name: shop
  process: {command: [sleep, "600"]}
  idle: {after: soon}
  routes: [{hosts: [shop.example.com]}]
- name: shop
  process: {command: [sleep, "600"]}
- name: Web Shop
  process: {command: [sleep, "600"]}
  replicas: {min: many}
- name: lazy
  process: {port: 80}
  unheard: of
- name: thief
  process: {command: [sleep, "600"]}
  routes:
  - hosts: [shop.example.com]
  replicas: {min: 3, max: 2}
`)
	e := runActivator(t, nil, "validate", "-f", file)
	if e.status != 1 || e.stdout != "" {
		t.Errorf("the status is %d, stdout is %q", e.status, e.stdout)
	}
	for _, mistake := range []struct {
		line int
		word string
	}{
		{1, "contrl"},
		{5, "after"},
		{7, "shop"},
		{9, "name"},
		{11, "min"},
		{13, "command"},
		{14, "unheard"},
		{18, "shop.example.com"},
		{19, "replicas"},
	} {
		found := false
		for line := range strings.SplitSeq(e.stderr, "\n") {
			at := regexp.MustCompile(fmt.Sprintf(`(:|line )%d\b`, mistake.line)).MatchString(line)
			found = found || at && strings.Contains(line, mistake.word)
		}
		if !found {
			t.Errorf("nothing is said of %q in line %d", mistake.word, mistake.line)
		}
	}
	if t.Failed() {
		t.Log(e.stderr)
	}
}

func TestMistakesInACommandLineAreExplained(t *testing.T) {
	t.Parallel()
	file := fileOf(t, validFile)
	for _, mistake := range []struct {
		name      string
		variables []string
		args      []string
		says      []string // on stderr
	}{
		{"no file", nil, []string{"local"}, []string{"--file", "-f dormouse.yaml", "--help"}},
		{"no such file", nil, []string{"local", "-f", "/nowhere.yaml"}, []string{"/nowhere.yaml", "no such file"}},
		{"a directory for a file", nil, []string{"local", "-f", t.TempDir()}, []string{"directory"}},
		{"nothing to validate", nil, []string{"validate"}, []string{"--file", "--help"}},
		{"validate without its file", nil, []string{"validate", "-f", "/nowhere.yaml"}, []string{"/nowhere.yaml", "no such file"}},
		{"unknown command", nil, []string{"locl"}, []string{`"locl"`}},
		{"unknown flag", nil, []string{"local", "-f", file, "--max-hold=3"}, []string{"--max-hold", "activator local --help"}},
		{"an argument", nil, []string{"local", "-f", file, "shop"}, []string{`"shop"`, "--help"}},
		{"a number that is none", nil, []string{"local", "-f", file, "--max-held-requests=many"}, []string{"--max-held-requests", `"many"`}},
		{"a negative number", nil, []string{"local", "-f", file, "--max-held-bytes=-1"}, []string{"--max-held-bytes", "-1"}},
		{"a duration that is none", nil, []string{"local", "-f", file, "--keep-alive=soon"}, []string{"--keep-alive", `"soon"`}},
		{"a negative duration", nil, []string{"local", "-f", file, "--drain-timeout=-1s"}, []string{"--drain-timeout", "-1s"}},
		{"no time to finish in", nil, []string{"local", "-f", file, "--drain-timeout=0s"}, []string{"--drain-timeout", "more than 0s, such as 5m0s"}},
		{"no window", nil, []string{"local", "-f", file, "--rescale-duration=0s"}, []string{"--rescale-duration"}},
		{"two mistakes", nil, []string{"local", "-f", file, "--max-held-bytes=-1", "--trusted-proxies=home"}, []string{"--max-held-bytes", "--trusted-proxies", `"home"`}},
		{"a format that is none", nil, []string{"local", "-f", file, "--log-format=xml"}, []string{"--log-format", `"xml"`}},
		{"a level that is none", nil, []string{"local", "-f", file, "--log-level=loud"}, []string{"--log-level", `"loud"`}},
		{"metrics neither on nor off", nil, []string{"local", "-f", file, "--service-metrics=yes"}, []string{"--service-metrics", `"yes"`}},
		{"an engine that is none", nil, []string{"local", "-f", file, "--http1-engine=nginx"}, []string{"--http1-engine", `"nginx"`, "native", "stdlib"}},
		{"the environment", []string{"DORMOUSE_MAX_HELD_REQUESTS=many"}, []string{"local", "-f", file}, []string{"$DORMOUSE_MAX_HELD_REQUESTS", `"many"`, "--max-held-requests"}},
		{"the environment's values", []string{"DORMOUSE_KEEP_ALIVE=-1s"}, []string{"local", "-f", file}, []string{"--keep-alive", "-1s"}},
	} {
		e := runActivator(t, mistake.variables, mistake.args...)
		if e.status != 1 || e.stdout != "" {
			t.Errorf("%s: the status is %d, stdout is %q", mistake.name, e.status, e.stdout)
		}
		for _, part := range mistake.says {
			if !strings.Contains(e.stderr, part) {
				t.Errorf("%s: stderr does not say %q: %s", mistake.name, part, e.stderr)
			}
		}
	}
}

func TestEveryFlagCanBeSetFromTheEnvironment(t *testing.T) {
	t.Parallel()
	help := runActivator(t, nil, "local", "--help").stdout
	_, list, _ := strings.Cut(help, "Flags:")
	flags := regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(list, -1)
	if len(flags) < 10 {
		t.Fatalf("the help names %d flags: %s", len(flags), help)
	}
	for _, f := range flags {
		name := "DORMOUSE_" + strings.ToUpper(strings.ReplaceAll(f[1], "-", "_"))
		if f[1] != "help" && !strings.Contains(help, "$"+name) {
			t.Errorf("the help of --%s does not name $%s", f[1], name)
		}
	}

	// And it has an effect, unless the flag is there too.
	file := fileOf(t, validFile)
	for args, says := range map[string]string{"": "-2 is negative", "--max-connections=-3": "-3 is negative"} {
		line := []string{"local"}
		if args != "" {
			line = append(line, args)
		}
		e := runActivator(t, []string{"DORMOUSE_FILE=" + file, "DORMOUSE_MAX_CONNECTIONS=-2"}, line...)
		if !strings.Contains(e.stderr, says) || strings.Contains(e.stderr, "--file") {
			t.Errorf("%q: stderr does not say %q: %s", args, says, e.stderr)
		}
	}
}

func TestAPortInUseIsNamedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	started := filepath.Join(t.TempDir(), "started")
	for _, field := range []string{"http", "control", "metrics"} {
		addresses := map[string]string{"http": "127.0.0.1:0", "control": "127.0.0.1:0", "metrics": "127.0.0.1:0"}
		addresses[field] = taken
		listen, err := json.Marshal(addresses)
		if err != nil {
			t.Fatal(err)
		}
		file := fileOf(t, fmt.Sprintf("listen: %s\nservices:\n", listen)+command(t, "shop", []string{"touch", started}, "replicas: {min: 1}"))
		e := runActivator(t, nil, "local", "-f", file)
		if e.status != 1 || !strings.Contains(e.stderr, "listen."+field) || !strings.Contains(e.stderr, taken+" is in use") {
			t.Errorf("%s: the status is %d, stderr says %s", field, e.status, e.stderr)
		}
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("a process was started all the same")
	}
}

func TestAControlPortThatOthersCanReachIsRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		file := fileOf(t, strings.Replace(validFile, `control: "127.0.0.1:0"`, fmt.Sprintf("control: %q", address), 1))
		e := runActivator(t, nil, "local", "-f", file)
		if e.status != 1 || !strings.Contains(e.stderr, "listen.control") || !strings.Contains(e.stderr, "loopback") {
			t.Errorf("%s: the status is %d, stderr says %s", address, e.status, e.stderr)
		}
	}
	e := runActivator(t, nil, "local", "-f", fileOf(t, validFile), "--pprof=0.0.0.0:0")
	if e.status != 1 || !strings.Contains(e.stderr, "--pprof") || !strings.Contains(e.stderr, "loopback") {
		t.Errorf("--pprof: the status is %d, stderr says %s", e.status, e.stderr)
	}
}

func TestLogsAreJSONUnlessAskedOtherwise(t *testing.T) {
	t.Parallel()
	for format, isJSON := range map[string]bool{"json": true, "auto": true, "console": false} { // here it is no terminal
		log := shortLife(t, "--log-format="+format)
		if !strings.Contains(log, "ready") {
			t.Errorf("--log-format=%s: the log does not say that it is ready: %s", format, log)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(log), "\n") {
			var entry struct{ Time, Level, Msg string }
			err := json.Unmarshal([]byte(line), &entry)
			if (err == nil) != isJSON {
				t.Errorf("--log-format=%s: %s", format, line)
			}
			if isJSON && (entry.Time == "" || entry.Level == "" || entry.Msg == "") {
				t.Errorf("--log-format=%s: a field is missing: %s", format, line)
			}
		}
	}
	if log := shortLife(t, "--log-level=error"); log != "" {
		t.Errorf("nothing went wrong, and with --log-level=error the log has %s", log)
	}
}

// shortLife returns the log of an activator that was ended as soon as it could answer.
func shortLife(t testing.TB, args ...string) string {
	t.Helper()
	binary, err := activatorBinary()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := l.Addr().String()
	deafen(t, l)
	file := fileOf(t, fmt.Sprintf("listen: {http: '127.0.0.1:0', control: '', metrics: %q}\nservices: []\n", metrics))
	var log bytes.Buffer
	cmd := exec.Command(binary, append([]string{"local", "-f", file}, args...)...)
	cmd.Env = append(os.Environ(), quickExit)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	client := newClient(t)
	eventually(t, "it is ready", func() bool {
		resp, err := client.Get("http://" + metrics + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	return log.String()
}
