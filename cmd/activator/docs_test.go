package main

import (
	"os"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling/local"
)

func TestTheDocumentedFilesAreValid(t *testing.T) {
	for _, page := range []string{"../../README.md", "../../docs/configuration.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```yaml\n")[1:]
		if len(blocks) == 0 {
			t.Errorf("%s has no file to check", page)
		}
		for _, block := range blocks {
			yaml, _, _ := strings.Cut(block, "```")
			if _, err := local.Parse([]byte(yaml), t.TempDir()); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
