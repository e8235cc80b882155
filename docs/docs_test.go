// Package docs holds the pages to what can be checked of them: that their links lead somewhere, and that an API server takes
// their resources.
package docs

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

const root = ".."

// pages are all pages, by their path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.ToSlash(name)] = string(text)
		}
	}
	return all
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()
	all := pages(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for name, text := range all {
		for _, found := range link.FindAllStringSubmatch(prose(text), -1) {
			to := found[1]
			if strings.Contains(to, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(to, "#")
			target := name
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), path))
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, to)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s; %s has no such heading", name, to, target)
			}
		}
	}
}

// prose is a page without its blocks of code.
func prose(page string) string {
	var text strings.Builder
	code := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			text.WriteString(line)
		}
	}
	return text.String()
}

// anchors are what GitHub makes of a page's headings.
func anchors(page string) (all []string) {
	unwanted := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for line := range strings.Lines(prose(page)) {
		title := strings.TrimLeft(line, "#")
		if len(title) == len(line) || !strings.HasPrefix(title, " ") {
			continue
		}
		title = unwanted.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
		all = append(all, strings.ReplaceAll(title, " ", "-"))
	}
	return all
}

// Resources of kinds that every cluster has, and ElasticServices, are sent to an API server that is as strict as it can be.
func TestAnAPIServerTakesTheResourcesOfThePagesAndTheExamples(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{ControlPlaneOnly: true})
	definition := "charts/dormouse/files/crds/dormouse.dev_elasticservices.yaml"
	kubectl(t, c, "", "create", "--filename", filepath.Join(root, definition))
	kubectl(t, c, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/elasticservices.dormouse.dev")
	kubectl(t, c, "", "create", "namespace", "web")

	texts := pages(t)
	for name, page := range texts {
		texts[name] = strings.Join(resources(page), "\n---\n")
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples", "kubernetes", "*.yaml"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("there are no examples: %v", err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(text)
	}
	sent := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		for document := range strings.SplitSeq(texts[name], "\n---\n") {
			if !known(document) {
				continue
			}
			sent++
			// One page may show the same resource again and again: it is not made.
			if says := kubectl(t, c, document, "create", "--dry-run=server", "--validate=strict", "--filename", "-"); strings.Contains(says, "Warning") {
				t.Errorf("%s: %s\n%s", name, says, document)
			}
		}
	}
	if sent < 10 {
		t.Errorf("only %d resources were found: have the pages another form now?", sent)
	}
}

// resources are the blocks of YAML, and what is given to kubectl in a shell's.
func resources(page string) []string {
	all := append(between(page, "\n```yaml\n", "\n```"), between(page, "<<YAML\n", "\nYAML\n")...)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "$APP", "registry.example/app:1")
	}
	return all
}

// between returns what stands between each first and the next last.
func between(text, first, last string) (all []string) {
	for _, part := range strings.Split(text, first)[1:] {
		inside, _, _ := strings.Cut(part, last)
		all = append(all, inside)
	}
	return all
}

// known reports whether a cluster without anything has the kind.
func known(document string) bool {
	version := regexp.MustCompile(`(?m)^apiVersion: (\S+)$`).FindStringSubmatch(document)
	if version == nil {
		return false
	}
	group, _, _ := strings.Cut(version[1], "/")
	return !strings.Contains(group, ".") || group == "networking.k8s.io" || group == "dormouse.dev"
}

// kubectl runs kubectl, which must succeed, and returns what it printed, warnings included.
func kubectl(t *testing.T, c *cluster.Cluster, input string, args ...string) string {
	t.Helper()
	cmd := c.Command(t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("kubectl %s: %v: %s\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out), input)
	}
	return string(out)
}
