package engine

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m, "DORMOUSE_ENGINE_TEST=other")) }

// TestEachRunIsToldItsEngine is told by a grandchild of itself, which writes down each run.
func TestEachRunIsToldItsEngine(t *testing.T) {
	if file := os.Getenv("DORMOUSE_ENGINE_FILE"); file != "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(Current() + os.Getenv("DORMOUSE_ENGINE_TEST") + " "); err != nil {
			t.Fatal(err)
		}
		if Current() == os.Getenv("DORMOUSE_ENGINE_FAILS") {
			t.Error("as it was told")
		}
		return
	}
	for fails, status := range map[string]int{"": 0, Native: 1, Stdlib: 1} {
		file := t.TempDir() + "/runs"
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), Variable+"=", "DORMOUSE_ENGINE_TEST=", "DORMOUSE_ENGINE_FILE="+file, "DORMOUSE_ENGINE_FAILS="+fails)
		out, _ := cmd.CombinedOutput()
		runs, _ := os.ReadFile(file)
		if string(runs) != "native stdlib nativeother " || cmd.ProcessState.ExitCode() != status {
			t.Errorf("ran %q and ended with %d\n%s", runs, cmd.ProcessState.ExitCode(), out)
		}
		if fails != "" && !strings.Contains(string(out), "FAIL with "+Variable+"="+fails) {
			t.Errorf("says %s, and not that %s failed", out, fails)
		}
	}
}
