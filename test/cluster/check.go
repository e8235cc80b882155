package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"unicode"

	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

const (
	longestDir = 70 // bytes: a Unix socket's name has at most 107, and kubelet's are kubelet/device-plugins/kubelet.sock
	mib        = 1 << 20
)

// complete fills in what was left to choose, and makes the folder.
func (o Options) complete() (Options, error) {
	if runtime.GOOS != "linux" {
		return o, unsupported(runtime.GOOS)
	}
	var err error
	if o.Dir, err = absolute(o.Dir); err != nil {
		return o, err
	}
	if err := checkName(o.Dir); err != nil {
		return o, err
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return o, err
		}
	}
	if err := completeRanges(&o.Ranges); err != nil {
		return o, err
	}
	if o.APIPort == 0 && !o.ControlPlaneOnly {
		o.APIPort = 6443
	}
	o.Cache.Progress = o.Progress
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return o, fmt.Errorf("make the cluster's folder: %w", err)
	}
	return o, nil
}

// check looks, before anything is built or started, for what would make a cluster fail later.
func (o Options) check() error {
	need := uint64(200 * mib)
	if !o.ControlPlaneOnly {
		need = 2048 * mib
		if os.Geteuid() != 0 {
			return errors.New("a full cluster needs root: it makes namespaces, mounts and containers; run it as root, or give --control-plane for what needs none")
		}
		if err := checkPrograms(); err != nil {
			return err
		}
	}
	free, err := freeSpace(o.Dir)
	if err != nil {
		return fmt.Errorf("look for space in %s: %w", o.Dir, err)
	}
	if free < need {
		return fmt.Errorf("too little disk space in %s: %d MiB are free and %d needed; make room, or choose another folder with --dir",
			o.Dir, free/mib, need/mib)
	}
	if o.ControlPlaneOnly && o.APIPort != 0 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", o.APIPort))
		if err != nil {
			return fmt.Errorf("--api-port %d: %w; choose another, or leave the choice to the program", o.APIPort, err)
		}
		return listener.Close()
	}
	return nil
}

// completeRanges fills in the networks that were not chosen and looks at those that were.
func completeRanges(chosen *keeper.Ranges) error {
	defaults := keeper.DefaultRanges()
	ranges := []struct {
		flag     string
		given    *netip.Prefix
		missing  netip.Prefix
		smallest int // bits
		largest  int
	}{
		{"--node-range", &chosen.Node, defaults.Node, 30, 8},
		{"--pod-range", &chosen.Pods, defaults.Pods, 24, 8},
		{"--service-range", &chosen.Services, defaults.Services, 24, 12}, // Kubernetes allows for 20 bits of Services
	}
	for i, r := range ranges {
		if !r.given.IsValid() {
			*r.given = r.missing
		}
		if !r.given.Addr().Is4() || r.given.Bits() > r.smallest || r.given.Bits() < r.largest || r.given.Masked() != *r.given {
			return fmt.Errorf("%s %s: want an IPv4 network between /%d and /%d that starts at its first address, such as %s",
				r.flag, r.given, r.largest, r.smallest, r.missing)
		}
		for _, other := range ranges[:i] {
			if r.given.Overlaps(*other.given) {
				return fmt.Errorf("%s %s and %s %s overlap: choose networks that do not", other.flag, other.given, r.flag, r.given)
			}
		}
	}
	return nil
}

// checkPrograms fails with the names of all programs that a node needs and that are not there.
func checkPrograms() error {
	var missing []string
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "ip", "nft", "conntrack", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if cniPlugins() == "" {
		missing = append(missing, "the CNI plugins")
	}
	if len(missing) > 0 {
		return fmt.Errorf("a full cluster needs programs that are not there: %s; hack/setup e2e installs them on Debian", strings.Join(missing, ", "))
	}
	return nil
}

// cniPlugins returns the folder of the programs that attach pods to networks; "" if there is none. Debian, their own
// releases and Fedora have it in different places.
func cniPlugins() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := exec.LookPath(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	return ""
}

// checkName fails if a cluster's programs could not work in a folder because of its name.
func checkName(dir string) error {
	if len(dir) > longestDir {
		return fmt.Errorf("the folder %s has a name of %d bytes: sockets in it allow for %d; choose a shorter one with --dir",
			dir, len(dir), longestDir)
	}
	// The name becomes part of URLs, mount options, lists, configuration files and a line for a shell.
	odd := strings.IndexFunc(dir, func(r rune) bool {
		return r != '/' && !strings.ContainsRune("._-+@=~", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if odd >= 0 {
		return fmt.Errorf("the folder %q has %q in its name: letters, digits and ._-+@=~ are what a cluster's programs agree on; choose another with --dir",
			dir, []rune(dir[odd:])[0])
	}
	return nil
}

// checkFolder fails if a folder is another user's, who could have anything done in it, or has something in it that is
// not a cluster's: it would be removed with the cluster.
func checkFolder(dir string) error {
	if err := checkOwner(dir); err != nil {
		return err
	}
	_, err := keeper.ReadConfig(dir)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not a cluster's folder: %w; choose another with --dir", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the cluster's folder: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != keeper.NewConfig { // where writing the first file of a cluster was interrupted
			return fmt.Errorf("%s is not empty and not a cluster's folder: choose another with --dir", dir)
		}
	}
	return nil
}

// absolute returns the one name of a folder, which need not exist yet: whoever removes it must not be left with a
// symbolic link removed and all else in place.
func absolute(dir string) (string, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return "", err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	parent, err := absolute(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

func unsupported(system string) error {
	return fmt.Errorf("a cluster needs Linux, and this is %s: run it in a virtual machine, or test against a cluster that you have with KUBECONFIG=… make e2e", system)
}
