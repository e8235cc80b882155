package components

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestASecondBuildRunsNothingAndSaysNothing(t *testing.T) {
	c, out := newCache(t)
	calls := goCalls(t)
	first := build(t, c)
	if got := calls(); !slices.ContainsFunc(got, func(call string) bool { return strings.HasPrefix(call, "build ") }) {
		t.Fatalf("the first build called go with %q, and that does not build", got)
	}
	for _, want := range []string{"building tiny: about 1s on two cores", "tiny: built in "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the first build said %q, want %q in it", out, want)
		}
	}
	said := out.String()
	if second := build(t, c); second != first {
		t.Errorf("built in %s, then in %s", first, second)
	}
	if got := calls(); len(got) != 0 {
		t.Errorf("the second build called go with %q", got)
	}
	if out.String() != said {
		t.Errorf("the second build said something: %q", strings.TrimPrefix(out.String(), said))
	}
}

func TestWhatDecidesTheProgramBuildsItAnew(t *testing.T) {
	c, _ := newCache(t)
	before := build(t, c)
	for _, change := range []struct {
		what string
		do   func()
		anew bool
	}{
		{what: "go.mod", anew: true, do: func() {
			write(t, c.sourceFile(tiny, "go.mod"), "// Pinned.\nmodule example.com/tiny\n\ngo 1.26.0\n", 0o644)
		}},
		{what: "a go.sum", anew: true, do: func() { write(t, c.sourceFile(tiny, "go.sum"), "\n", 0o644) }},
		{what: "a source", anew: true, do: func() { write(t, c.sourceFile(tiny, "main.go"), program1+"// More.\n", 0o644) }},
		{what: "a new source", anew: true, do: func() { write(t, c.sourceFile(tiny, "more.go"), "package main\n", 0o644) }},
		{what: "GOFLAGS", anew: true, do: func() { t.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -tags=more")) }},
		{what: "a test", do: func() { write(t, c.sourceFile(tiny, "main_test.go"), "package main\n", 0o644) }},
		{what: "a document", do: func() { write(t, c.sourceFile(tiny, "README.md"), "Tiny.\n", 0o644) }},
		{what: "another component", do: func() { write(t, c.sourceFile("other", "main.go"), program1+"// More.\n", 0o644) }},
		{what: "a time", do: func() {
			if err := os.Chtimes(c.sourceFile(tiny, "main.go"), time.Now(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		change.do()
		after := build(t, c)
		if (after != before) != change.anew {
			t.Errorf("after a change of %s, %s was followed by %s; want it built anew %t", change.what, before, after, change.anew)
		}
		before = after
	}
}

func TestABrokenEntryIsBuiltAnewAndALineSaysWhy(t *testing.T) {
	for what, breaking := range map[string]struct {
		do  func(program string) error
		why string
	}{
		"truncated":      {func(p string) error { return os.Truncate(p, 1000) }, "tiny has 1000 bytes and should have "},
		"empty":          {func(p string) error { return os.Truncate(p, 0) }, "tiny has 0 bytes and should have "},
		"not executable": {func(p string) error { return os.Chmod(p, 0o444) }, "tiny has mode 0444 and should have 0555"},
		"missing":        {os.Remove, "tiny is missing"},
		"a folder":       {func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o755) }, "tiny is not a file"},
		"unfinished":     {func(p string) error { return os.Remove(filepath.Join(filepath.Dir(p), mark)) }, "it was never finished"},
		"unrecorded":     {func(p string) error { return os.Truncate(filepath.Join(filepath.Dir(p), mark), 0) }, "its size was not recorded"},
	} {
		t.Run(what, func(t *testing.T) {
			c, out := newCache(t)
			path := build(t, c)
			if err := breaking.do(path); err != nil {
				t.Fatal(err)
			}
			if again := build(t, c); again != path {
				t.Errorf("built anew in %s, want %s", again, path)
			}
			if want := "tiny is built anew: " + breaking.why; !strings.Contains(out.String(), want) {
				t.Errorf("it said %q, want %q in it", out, want)
			}
		})
	}
}

func TestEntriesThatNobodyUsesGoAfterAMonth(t *testing.T) {
	c, out := newCache(t)
	age := func(path string, by time.Duration) {
		t.Helper()
		if err := os.Chtimes(filepath.Dir(path), time.Time{}, time.Now().Add(-by)); err != nil {
			t.Fatal(err)
		}
	}
	change := func(text string) { write(t, c.sourceFile(tiny, "main.go"), program1+text, 0o644) }
	old := build(t, c)
	change("// Used.\n")
	used := build(t, c)
	change("// Recent.\n")
	recent := build(t, c)
	age(old, month+time.Hour)
	age(used, month+time.Hour)
	age(recent, month-time.Hour)

	change("// Used.\n")
	build(t, c)
	change("// New.\n")
	build(t, c)
	for path, stays := range map[string]bool{old: false, used: true, recent: true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v, want it there %t", path, err, stays)
		}
	}
	if want := "removing " + filepath.Base(filepath.Dir(old)); !strings.Contains(out.String(), want) {
		t.Errorf("it said %q, want %q in it", out, want)
	}
}

func TestThePinsTellTheVersions(t *testing.T) {
	c := &Cache{} // The working directory is in the checkout.
	for name := range table() {
		version, err := c.Version(name)
		if err != nil {
			t.Fatal(err)
		}
		if (name != Pause) != strings.HasPrefix(version, "v") || len(version) < 6 {
			t.Errorf("%s has version %q", name, version)
		}
	}
	s, err := c.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.program(Kubelet)
	if err != nil {
		t.Fatal(err)
	}
	version, _ := c.Version(Kubelet)
	for _, want := range []string{"component-base/version.gitVersion=" + version + " ", "component-base/version.gitMajor=1 "} {
		if !strings.Contains(strings.Join(p.flags, " "), want) {
			t.Errorf("kubelet is built with %q, want %q in it", p.flags, want)
		}
	}
}

func TestWhatCannotBeBuiltIsToldInOneLine(t *testing.T) {
	c, _ := newCache(t)
	actual := &Cache{Dir: t.TempDir()}
	for _, refused := range []struct {
		err  func() error
		want string
	}{
		{func() error { _, err := c.Build(t.Context(), "kubelt"); return err }, `there is no component "kubelt": there are other, tiny`},
		{func() error { _, err := actual.Image(t.Context(), Kubelet); return err }, "kubelet runs on the machine and has no image; coredns and pause have one"},
		{func() error { _, err := (&Cache{Source: t.TempDir()}).Version(Etcd); return err }, "go.mod: no such file or directory"},
		{func() error { t.Chdir(t.TempDir()); _, err := (&Cache{}).Version(Etcd); return err }, "is a checkout of github.com/dormouse-dev/dormouse: run this in one"},
		{func() error { t.Setenv("PATH", t.TempDir()); _, err := c.Build(t.Context(), tiny); return err }, "install Go, or add its bin folder to PATH"},
	} {
		err := refused.err()
		if err == nil || !strings.Contains(err.Error(), refused.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %q in one line", err, refused.want)
		}
	}
}
