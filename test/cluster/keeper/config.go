package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
)

// NodeName is what the node of every full cluster is called.
const NodeName = "node"

// Config says what a keeper keeps. It is written to the cluster's folder, so that everyone who opens the folder later
// knows what it holds.
type Config struct {
	Dir              string                               `json:"dir"`              // absolute; everything the cluster writes is below it
	ControlPlaneOnly bool                                 `json:"controlPlaneOnly"` // no node, no root
	APIPort          uint16                               `json:"apiPort"`          // where the API server listens
	Ranges           Ranges                               `json:"ranges"`
	Programs         map[components.Name]string           `json:"programs"` // where each program is
	Images           map[components.Name]components.Image `json:"images,omitempty"`
	CNIPlugins       string                               `json:"cniPlugins,omitempty"` // the folder of the programs that attach pods to networks
	Version          string                               `json:"version"`              // of Kubernetes, as in v1.37.2
}

// Ranges are the networks of a cluster. They exist in its own network namespace, and on the host as routes to it.
type Ranges struct {
	Node     netip.Prefix `json:"node"`     // the link between host (first address) and node (second)
	Pods     netip.Prefix `json:"pods"`     // the first address is the bridge's
	Services netip.Prefix `json:"services"` // the first is the API server's, the tenth the name server's
}

// flag is a range with the name that people give it by.
type flag struct {
	flag    string
	network netip.Prefix
}

func (r Ranges) flags() []flag {
	return []flag{{"--node-range", r.Node}, {"--pod-range", r.Pods}, {"--service-range", r.Services}}
}

// DefaultRanges are what most clusters use, and what most networks therefore leave alone.
func DefaultRanges() Ranges {
	return Ranges{
		Node:     netip.MustParsePrefix("10.240.0.0/30"),
		Pods:     netip.MustParsePrefix("10.244.0.0/22"),
		Services: netip.MustParsePrefix("10.96.0.0/16"),
	}
}

// NewConfig is the name that the configuration has in the cluster's folder while it is being written.
const NewConfig = "config.json.new"

// ReadConfig reads the configuration from a cluster's folder, named without symbolic links. It fails with fs.ErrNotExist
// where there is no cluster, and if it finds what is not the configuration of a cluster in that folder.
func ReadConfig(dir string) (Config, error) {
	var cfg Config
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		return cfg, fmt.Errorf("read %s: %w", path, err)
	}
	switch cfg.Dir {
	case dir:
		return cfg, nil
	case "":
		return cfg, fmt.Errorf("%s is not a cluster's", path)
	default:
		return cfg, fmt.Errorf("%s is that of a cluster in %s", path, cfg.Dir)
	}
}

// Write puts the configuration into the cluster's folder.
func (c Config) Write() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	// At once: whoever finds half a configuration would not know the folder for a cluster's.
	if err := os.WriteFile(c.path(NewConfig), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(c.path(NewConfig), c.path("config.json"))
}

// Kubeconfig is the file that makes a client the cluster's administrator.
func (c Config) Kubeconfig() string { return c.path("kubeconfig") }

// Socket is where the keeper takes orders: HTTP, on a Unix socket that the folder's mode guards.
func (c Config) Socket() string { return c.path("keeper.sock") }

// Log is where a component's output goes.
func (c Config) Log(name string) string { return c.path("logs", name+".log") }

// ContainerdSocket is where the node's containerd is spoken to.
func (c Config) ContainerdSocket() string { return c.path("containerd.sock") }

// Server is the URL of the API server.
func (c Config) Server() string {
	return "https://" + netip.AddrPortFrom(c.apiAddress(), c.APIPort).String()
}

func (c Config) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

func (c Config) apiAddress() netip.Addr {
	if c.ControlPlaneOnly {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return c.nodeAddress()
}

func (c Config) hostAddress() netip.Addr   { return nth(c.Ranges.Node, 1) }
func (c Config) nodeAddress() netip.Addr   { return nth(c.Ranges.Node, 2) }
func (c Config) bridgeAddress() netip.Addr { return nth(c.Ranges.Pods, 1) }
func (c Config) dnsAddress() netip.Addr    { return nth(c.Ranges.Services, 10) }

// id tells this cluster's link and cgroups from another's.
func (c Config) id() string {
	sum := sha256.Sum256([]byte(c.Dir))
	return hex.EncodeToString(sum[:4])
}

// nth returns the nth address of a range.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Masked().Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}
