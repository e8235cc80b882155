package edges

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSettingTheMachinesTimeBreaksNothingOff: Go's times have a monotonic part, which what is made of numbers, texts and
// calendars lacks. So nobody makes such times, but where a comment here says what a jump of the clock does.
func TestSettingTheMachinesTimeBreaksNothingOff(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"activator/http1/clock.go":          "the Date of an answer",
		"activator/http1/sock/socket.go":    "a deadline that is over, whatever the time",
		"activator/tcp/linger.go":           "a deadline that is over, whatever the time",
		"elastiserver/peers/clock_other.go": "systems other than Linux, where only tests run",
		"scaling/kube/resource/events.go":   "the name of an Event",
		"scaling/kube/service.go":           "for how long pods are read that nobody waits for any more",
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSpace(string(out))
	read := 0
	for _, folder := range []string{"activator", "cmd", "elastiserver", "metrics", "scaling"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			read++
			name, err := filepath.Rel(root, path)
			if err != nil || may[name] != "" {
				return err
			}
			for _, use := range calendar(t, path) {
				t.Errorf("%s: what a wall clock says must not decide anything; say here what it is for, or keep a time.Time of time.Now", use)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if read < 100 {
		t.Errorf("only %d files were read", read)
	}
}

// calendar finds what takes the monotonic part off a time in a file.
func calendar(t *testing.T, path string) (uses []string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, _ := selector.X.(*ast.Ident)
		made := of != nil && of.Name == "time" && slices.Contains([]string{"Unix", "UnixMilli", "UnixMicro", "Date"}, selector.Sel.Name)
		taken := len(call.Args) == 0 && slices.Contains([]string{"Unix", "UnixNano", "UnixMilli", "UnixMicro"}, selector.Sel.Name)
		if made || taken {
			uses = append(uses, files.Position(call.Pos()).String())
		}
		return true
	})
	return uses
}
