//go:build linux

package cluster

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

func TestAComponentThatFailsIsNamedWithItsLastWords(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script string
		want   []string
	}{
		"it ends":         {"echo 'the disk is made of cheese' >&2; exit 3", []string{"etcd ended: exit status 3", "the disk is made of cheese", "Its log is ", "logs/etcd.log"}},
		"it ends well":    {"exit 0", []string{"etcd ended: exit status 0", "logs/etcd.log"}},
		"it is killed":    {"kill -9 $$", []string{"etcd ended: signal: killed"}},
		"it cannot run":   {"", []string{"start etcd: ", "/etcd: exec format error"}},
		"it is not there": {"-", []string{"start etcd: ", "/etcd: no such file or directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, opts, cfg := prepared(t)
			fake := filepath.Join(newDir(t), "etcd")
			cfg.Programs[components.Etcd] = fake
			switch tc.script {
			case "-":
			case "":
				write(t, fake, "")
			default:
				write(t, fake, "#!/bin/sh\n"+tc.script+"\n")
			}
			if err := os.Chmod(fake, 0o700); err != nil && tc.script != "-" {
				t.Fatal(err)
			}
			_, err := start(t.Context(), cfg, opts)
			if err == nil {
				t.Fatal("it is up, without an etcd")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in: %v", want, err)
				}
			}
			if left := processes(t, c.dir); len(left) != 0 {
				t.Errorf("still running: %v", left)
			}
		})
	}
}

// What up looks for when it chose a port that somebody else then took.
func TestAPortThatIsTakenMeanwhileIsSaid(t *testing.T) {
	t.Parallel()
	_, opts, cfg := prepared(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg.APIPort = netip.MustParseAddrPort(listener.Addr().String()).Port()
	if _, err := start(t.Context(), cfg, opts); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("start: %v, want that the address is in use", err)
	}
}

func TestAKeeperThatCannotWorkIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	_, opts, cfg := prepared(t)
	opts.Program = "/bin/false"
	_, err := start(t.Context(), cfg, opts)
	if err == nil || !strings.Contains(err.Error(), "without a word") || !strings.Contains(err.Error(), "logs/keeper.log") {
		t.Errorf("start: %v, want that it ended without a word, and its log", err)
	}
	opts.Program = "/no/such/program"
	if _, err := start(t.Context(), cfg, opts); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("start: %v, want the program's name", err)
	}
}

// prepared returns what start is called with, for a control plane that nobody has started.
func prepared(t *testing.T) (*cli, Options, keeper.Config) {
	t.Helper()
	c := newCLI(t)
	opts, err := Options{Dir: c.dir, ControlPlaneOnly: true, Program: os.Getenv(built)}.complete()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := opts.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.APIPort, err = freePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, opts, cfg
}
