package deps

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dormouse-dev/dormouse"

// root is the module's directory, seen from this one.
const root = "../.."

// graph has what each package imports, by import path, test files apart.
type graph map[string][]string

// load asks the go command for the graph of the module's packages and of all that they depend on.
func load(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v\n%s", err, stderr.String())
	}
	g := graph{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatalf("read the go command's list: %v", err)
		}
		g[pkg.ImportPath] = pkg.Imports
	}
}

// violations has a line for each package that breaks the rule, sorted: the chain of imports, and why it may not be.
func (g graph) violations(r rule) []string {
	var lines []string
	for pkg := range g {
		if !matches(r.from, pkg) || matches(r.except, pkg) {
			continue
		}
		if chain := g.chain(pkg, r); chain != nil {
			lines = append(lines, fmt.Sprintf("%s: %s", strings.Join(chain, " imports "), r.why))
		}
	}
	slices.Sort(lines)
	return lines
}

// chain is a shortest way from pkg to what the rule forbids it, or nil.
func (g graph) chain(pkg string, r rule) []string {
	seen := map[string]bool{pkg: true}
	for ways := [][]string{{pkg}}; len(ways) > 0; ways = ways[1:] {
		way := ways[0]
		for _, imported := range g[way[len(way)-1]] {
			if seen[imported] {
				continue
			}
			seen[imported] = true
			next := append(slices.Clone(way), imported)
			if matches(r.to, imported) {
				return next
			}
			if r.deep {
				ways = append(ways, next)
			}
		}
	}
	return nil
}

// matches reports whether one of the patterns stands for the package.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		base, below := strings.CutSuffix(expand(pattern), "/...")
		return pkg == base || below && strings.HasPrefix(pkg, base+"/")
	})
}

// expand makes an import path of a pattern of the module's own.
func expand(pattern string) string {
	if own, ok := strings.CutPrefix(pattern, "./"); ok {
		return module + "/" + own
	}
	return pattern
}
