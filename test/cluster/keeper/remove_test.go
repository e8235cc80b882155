//go:build linux

package keeper

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeeperIsToldFromALaterProcessOfItsNumber(t *testing.T) {
	t.Parallel()
	cfg := folder(t)
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Wait() }()
	defer func() { _ = other.Process.Kill() }()
	if err := Record(cfg, other.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if !Alive(cfg) {
		t.Error("the process that was recorded does not count as alive")
	}
	recorded, err := readIdentity(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*identity){
		"started at another time":         func(i *identity) { i.Start += "0" },
		"before the machine started anew": func(i *identity) { i.Boot = "another" },
	} {
		earlier := recorded
		change(&earlier)
		overwrite(t, cfg, earlier)
		if Alive(cfg) {
			t.Errorf("%s: it counts as alive", name)
		}
		if err := earlier.end(); err != nil {
			t.Errorf("%s: end: %v, want nil: there is nothing to end", name, err)
		}
		if c := condition(other.Process.Pid); c == "" || c == "Z" {
			t.Fatalf("%s: a process that was not meant was ended", name)
		}
	}
}

func TestAKeeperThatNobodyHasWaitedForYetIsNotAlive(t *testing.T) {
	t.Parallel()
	cfg := folder(t)
	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Record(cfg, child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	in.Close()
	eventually(t, "it is a zombie", func() bool { return condition(child.Process.Pid) == "Z" })
	if Alive(cfg) {
		t.Error("a zombie counts as alive")
	}
	if err := Record(cfg, child.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record a zombie: %v, want that there is no such process", err)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveEndsAKeeperThatHangs(t *testing.T) {
	t.Parallel()
	cfg := folder(t)
	child := exec.CommandContext(t.Context(), "sh", "-c", "kill -STOP $$; exec sleep 1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Record(cfg, child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it hangs", func() bool { return condition(child.Process.Pid) == "T" })
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	if err := Remove(cfg); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || err.Error() != "signal: terminated" {
		t.Errorf("it ended by %v, want the signal that it could tidy up on", err)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder: %v, want it gone", err)
	}
}

func TestAConfigurationIsOfTheFolderItIsIn(t *testing.T) {
	t.Parallel()
	cfg := folder(t)
	got, err := ReadConfig(cfg.Dir)
	if err != nil || got.Dir != cfg.Dir || got.Ranges != cfg.Ranges {
		t.Errorf("read back: %+v, %v; want what was written, %+v", got, err, cfg)
	}
	elsewhere := t.TempDir()
	if _, err := ReadConfig(elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v, want fs.ErrNotExist", err)
	}
	text, err := os.ReadFile(cfg.path("config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		string(text):            "is that of a cluster in " + cfg.Dir,
		`{"name": "something"}`: "is not a cluster's",
		`{"dir":`:               "unexpected end of JSON input",
	} {
		if err := os.WriteFile(filepath.Join(elsewhere, "config.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(elsewhere); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("config.json is %.20q: %v, want %q", content, err, want)
		}
	}
}

// folder makes a cluster's folder.
func folder(t *testing.T) Config {
	t.Helper()
	cfg := Config{Dir: filepath.Join(t.TempDir(), "c"), ControlPlaneOnly: true, Ranges: DefaultRanges()}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Write(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func overwrite(t *testing.T, cfg Config, i identity) {
	t.Helper()
	data, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.path("keeper.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
