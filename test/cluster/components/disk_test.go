package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTooLittleDiskIsToldBeforeAnythingIsBuilt(t *testing.T) {
	c, _ := newCache(t)
	c.space = func(string) (free, device uint64, known bool) { return 6*mib + 1, 1, true }
	calls := goCalls(t)
	_, err := c.Build(t.Context(), tiny)
	if err == nil {
		t.Fatal("it was built on a disk that is too small")
	}
	// 2 MiB of program, 5 of packages, and both for a while in a temporary folder.
	for _, want := range []string{
		"build tiny: too little disk: 6 MiB are free where a first build needs up to 14 MiB: ",
		"9 MiB in " + c.Dir + " (XDG_CACHE_HOME chooses another folder)", "5 MiB in ", "(GOCACHE chooses another folder)",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	for _, call := range calls() {
		if strings.HasPrefix(call, "build") {
			t.Errorf("go was called to %s", call)
		}
	}
}

func TestEachDiskHasToHoldItsOwn(t *testing.T) {
	c, _ := newCache(t)
	c.space = func(dir string) (free, device uint64, known bool) {
		if strings.HasPrefix(dir, c.Source) {
			return 9 * mib, 1, true
		}
		return 5 * mib, 2, true
	}
	build(t, c)
}

func TestNoSpaceIsNeededForWhatIsThere(t *testing.T) {
	c, _ := newCache(t)
	build(t, c)
	c.space = func(string) (free, device uint64, known bool) { return 0, 1, true }
	build(t, c)
}

func TestFreeSpaceIsKnown(t *testing.T) {
	dir := t.TempDir()
	free, _, known := freeSpace(existing(filepath.Join(dir, "not", "there")))
	if !known || free == 0 {
		t.Errorf("%s: %d bytes are free, known %t", dir, free, known)
	}
}

// The whole plan is checked at once: what a later program needs must not be missed after minutes of building others.
func TestThePlanCountsSharedPackagesOnce(t *testing.T) {
	s, err := (&Cache{}).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []program
	for _, name := range []Name{Etcd, APIServer, Kubelet} {
		p, err := s.program(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	list, got, lasts := plan(all)
	etcd, api, kubelet := all[0], all[1], all[2]
	want := cost{
		size: etcd.size + api.size + kubelet.size, compile: etcd.compile + api.compile,
		download: etcd.download + api.download, scratch: api.compile + api.size,
	}
	if got != want || lasts != etcd.lasts+api.lasts || list != "etcd, kube-apiserver, kubelet" {
		t.Errorf("%s: got %+v in %v, want %+v in %v", list, got, lasts, want, etcd.lasts+api.lasts)
	}
	if home, err := os.UserHomeDir(); err == nil && existing(home) != home {
		t.Errorf("%s is there, and %s was taken", home, existing(home))
	}
}
