// Package deps holds the module's packages to the arrows that are drawn between them in docs/ARCHITECTURE.md.
package deps

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNoPackageBreaksARule(t *testing.T) {
	g := load(t)
	for _, pkg := range []string{"./activator", "./elastiserver", "./metrics", "./scaling", "./cmd/activator", "./test/app"} {
		if _, ok := g[expand(pkg)]; !ok {
			t.Errorf("the go command lists no package %s; what else was not looked at?", pkg)
		}
	}
	for _, r := range rules() {
		for _, line := range g.violations(r) {
			t.Error(line)
		}
	}
}

// Only programs may end the process: a package that does takes its callers' deferred work with it.
func TestOnlyProgramsExit(t *testing.T) {
	skip := map[string]bool{".git": true, "cmd": true, "test": true, "hack": true, "bench": true, "examples": true}
	files := 0
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && skip[path] {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		for _, at := range exits(t, filepath.Join(root, path), nil) {
			t.Errorf("%s: os.Exit: return an error instead, so that deferred work is done", at)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no Go file was looked at")
	}
}

func TestExitsAreFoundInASource(t *testing.T) {
	const source = `package p

import "os"

func f() {
	defer func() { os.Exit(1) }()
	exit := os.Exit
	exit(0)
	os.Getenv("Exit")
}
`
	if got := exits(t, "p.go", source); len(got) != 2 {
		t.Errorf("found os.Exit at %v, want it on lines 6 and 7", got)
	}
}

// exits has the position of each os.Exit in a file, whose source is read from path if it is nil.
func exits(t *testing.T, path string, source any) []token.Position {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []token.Position
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Exit" {
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "os" {
				found = append(found, fset.Position(sel.Pos()))
			}
		}
		return true
	})
	return found
}
