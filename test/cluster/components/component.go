package components

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Name is the name of a program, as its documentation and `ps` have it.
type Name string

// The programs that can be built.
const (
	Etcd              Name = "etcd"
	APIServer         Name = "kube-apiserver"
	ControllerManager Name = "kube-controller-manager"
	Scheduler         Name = "kube-scheduler"
	Kubelet           Name = "kubelet"
	Proxy             Name = "kube-proxy"
	Kubectl           Name = "kubectl"
	CoreDNS           Name = "coredns" // Runs in a pod, see [Cache.Image].
	Pause             Name = "pause"   // Process 1 of every pod, see [Cache.Image].
)

// component says how a program is built.
type component struct {
	pins
	pkg   string   // What is given to go build.
	stamp []string // Packages that the linker is to tell the version, in the variables that Kubernetes has for it.
	pod   bool     // It runs in a pod, and so on Linux, wherever the cluster is built.
	size  uint64   // Bytes of the program.
}

// pins are a folder that pins programs, and what building all of them costs when Go's caches are empty. An estimate that
// is right to a half will do.
type pins struct {
	folder   string        // Under test/cluster/components: where the go command runs.
	module   string        // The required module whose version is the programs'; "" for a program of our own.
	download uint64        // Bytes in Go's module cache: the modules' archives and their unpacked files.
	compile  uint64        // Bytes of the compiled packages: in Go's build cache, and once more in a temporary folder until go ends.
	lasts    time.Duration // On two cores.
}

// table has every component. What it says about cost was measured with Go 1.26.8 on linux/amd64: time by time(1), sizes
// of modules by adding up the files of `go list -deps -f {{.Module.Dir}}` and their archives, sizes of compiled packages
// by adding up those of `go list -deps -export -f {{.Export}}`. In the temporary folder go kept as much again while it ran.
func table() map[Name]component {
	kubernetes := pins{
		folder: "kubernetes", module: "k8s.io/kubernetes",
		download: 600 * mib, compile: 2100 * mib, lasts: 380 * time.Second,
	}
	etcd := pins{
		folder: "etcd", module: "go.etcd.io/etcd/server/v3",
		download: 190 * mib, compile: 310 * mib, lasts: 60 * time.Second,
	}
	coredns := pins{
		folder: "coredns", module: "github.com/coredns/coredns",
		download: 250 * mib, compile: 650 * mib, lasts: 90 * time.Second,
	}
	pause := pins{folder: "pause", compile: 30 * mib, lasts: 5 * time.Second}

	release := func(command string, size uint64) component {
		return component{
			pins: kubernetes, pkg: "k8s.io/kubernetes/cmd/" + command, size: size,
			stamp: []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"},
		}
	}
	return map[Name]component{
		Etcd:              {pins: etcd, pkg: "go.etcd.io/etcd/server/v3", size: 25 * mib},
		APIServer:         release("kube-apiserver", 120*mib),
		ControllerManager: release("kube-controller-manager", 105*mib),
		Scheduler:         release("kube-scheduler", 80*mib),
		Kubelet:           release("kubelet", 90*mib),
		Proxy:             release("kube-proxy", 80*mib),
		Kubectl:           release("kubectl", 60*mib),
		CoreDNS:           {pins: coredns, pkg: ".", size: 55 * mib, pod: true},
		Pause:             {pins: pause, pkg: ".", size: 2 * mib, pod: true},
	}
}

const mib = 1 << 20

// flags are the arguments of go build, before the package.
func (d component) flags(version string) []string {
	link := []string{"-s", "-w"}
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	for _, pkg := range d.stamp {
		link = append(link, "-X", pkg+".gitVersion="+version, "-X", pkg+".gitMajor="+major, "-X", pkg+".gitMinor="+minor,
			"-X", pkg+".gitCommit=") // A module does not know it; what its source has instead is a placeholder.
	}
	return []string{"-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", strings.Join(link, " ")}
}

// version reads the version that the go.mod in dir requires of the component's module.
func (d component) version(dir string) (string, error) {
	path := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require"))
		if len(fields) >= 2 && fields[0] == d.module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("%s requires no version of %s", path, d.module)
}

// names lists the components that there are, for a person.
func names(all map[Name]component) string {
	var list []string
	for name := range all {
		list = append(list, string(name))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
