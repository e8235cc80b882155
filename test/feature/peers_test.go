package feature

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository's, from here.
const root = "../.."

func TestEveryTestThatTheComparisonNamesExists(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "comparison.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)\\.(Test\\w+)`")
	sources := make(map[string]string) // of the tests of a package
	rows := 0
	_, table, _ := strings.Cut(string(text), "\n| what goes wrong |")
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("names no test: %s", line)
		}
		for _, test := range tests {
			dir, name := test[1], test[2]
			if _, read := sources[dir]; !read {
				sources[dir] = testSources(t, dir)
			}
			if !strings.Contains(sources[dir], "\nfunc "+name+"(") {
				t.Errorf("there is no %s in %s", name, dir)
			}
		}
	}
	if rows < 25 {
		t.Errorf("only %d rows: has the table another form now?", rows)
	}
}

// testSources returns all test files of a folder, one behind the other.
func testSources(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
