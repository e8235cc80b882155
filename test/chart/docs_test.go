package chart

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestTheDocumentHasEveryValueWithItsDefault(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, chart(t))["values.yaml"]), &values); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(root + "/docs/helm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Values\n")
	want := leaves(values)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(table, -1) {
		value, ok := want[row[1]]
		if !ok {
			t.Errorf("%s is documented, and values.yaml does not have it", row[1])
			continue
		}
		delete(want, row[1])
		code, isCode := strings.CutPrefix(row[2], "`")
		if !isCode {
			continue // A default in words.
		}
		var documented any
		if err := yaml.Unmarshal([]byte(strings.TrimSuffix(code, "`")), &documented); err != nil {
			t.Errorf("%s: %v", row[1], err)
		}
		if got, want := fmt.Sprintf("%#v", documented), fmt.Sprintf("%#v", value); got != want {
			t.Errorf("%s is documented as %s, and is %s", row[1], got, want)
		}
	}
	for path := range want {
		t.Errorf("%s is not documented", path)
	}
}

// The order is that of values.yaml, where people look next.
func TestTheDocumentHasTheOrderOfTheValues(t *testing.T) {
	var values yaml.Node
	if err := yaml.Unmarshal([]byte(read(t, chart(t))["values.yaml"]), &values); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := 0; i < len(values.Content[0].Content); i += 2 {
		want = append(want, values.Content[0].Content[i].Value)
	}
	text, err := os.ReadFile(root + "/docs/helm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Values\n")
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)").FindAllStringSubmatch(table, -1) {
		got = append(got, row[1])
	}
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("the document has the order\n%q\nand values.yaml\n%q", got, want)
	}
}

// A row that names a test which was renamed or deleted promises something that nobody looks at any more.
func TestEveryTestThatTheThreatModelNamesIsThere(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		code, err := os.ReadFile(path)
		for _, f := range regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)\(`).FindAllSubmatch(code, -1) {
			written[string(f[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+|knowsItsCallers)`").FindAllStringSubmatch(string(text), -1)
	for _, name := range named {
		if !written[name[1]] {
			t.Errorf("there is no %s", name[1])
		}
	}
	if len(named) < 30 {
		t.Errorf("%d tests are named, want one for each row at least", len(named))
	}
}
