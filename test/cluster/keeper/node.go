package keeper

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"text/template"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/pki"
)

//go:embed containerd.toml
var containerdConfig string

//go:embed addons.yaml
var addons string

// prepareNode makes of the namespaces this process is in a machine that a node can live on.
func (k *keeper) prepareNode(ctx context.Context) error {
	// The link is there when standard input ends.
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return fmt.Errorf("unexpected input before the node's network was linked")
	}
	if err := prepareMounts(k.cfg); err != nil {
		return err
	}
	if err := hideSettings(k.cfg); err != nil {
		return err
	}
	if err := prepareNetwork(ctx, k.cfg); err != nil {
		return err
	}
	// There is no name server but the cluster's own.
	if err := os.WriteFile(k.cfg.path("resolv.conf"), []byte("# none\n"), 0o644); err != nil {
		return err
	}
	var err error
	k.pulls, err = servePulls(ctx)
	return err
}

// startContainerd starts containerd and gives it the images that the cluster itself needs.
func (k *keeper) startContainerd(ctx context.Context) error {
	if err := k.render("containerd.toml", containerdConfig); err != nil {
		return err
	}
	if err := k.writeJSON("cni/10-dormouse.conflist", map[string]any{
		"cniVersion": "0.4.0",
		"name":       "dormouse",
		"plugins": []any{map[string]any{
			"type":             "bridge",
			"bridge":           bridge,
			"isGateway":        true,
			"isDefaultGateway": true,
			"hairpinMode":      true,
			"ipMasq":           false,
			"ipam": map[string]any{
				"type":    "host-local",
				"dataDir": k.cfg.path("addresses"),
				"ranges":  []any{[]any{map[string]any{"subnet": k.cfg.Ranges.Pods.String()}}},
			},
		}},
	}); err != nil {
		return err
	}
	if err := k.pulls.configure(k.cfg.path("registries")); err != nil {
		return err
	}
	k.components.start("containerd", k.cfg.Log("containerd"),
		[]string{"containerd", "--config", k.cfg.path("containerd.toml"), "--log-level=warn"})
	if err := k.until(ctx, "containerd answers", 30*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		return command(ctx, "ask containerd", [][]string{{"ctr", "--address", k.cfg.ContainerdSocket(), "version"}})
	}); err != nil {
		return err
	}
	for _, image := range k.cfg.Images {
		if err := LoadImage(ctx, k.cfg, image.Tar); err != nil {
			return err
		}
	}
	return nil
}

// LoadImage imports the images in a tar file (as docker save writes it, or an OCI layout) into a cluster's node.
func LoadImage(ctx context.Context, cfg Config, tar string) error {
	return command(ctx, "load "+tar, [][]string{
		{"ctr", "--address", cfg.ContainerdSocket(), "--namespace", "k8s.io", "images", "import", tar},
	})
}

// startNode starts what makes pods run: scheduler, kubelet and kube-proxy, and asks for the name server.
func (k *keeper) startNode(ctx context.Context) error {
	if err := k.startScheduler(); err != nil {
		return err
	}
	if err := k.startKubelet(); err != nil {
		return err
	}
	if err := k.startProxy(); err != nil {
		return err
	}
	if err := k.render("addons.yaml", addons); err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, k.cfg.Programs[components.Kubectl], "--kubeconfig", k.cfg.Kubeconfig(),
		"apply", "--server-side", "--filename", k.cfg.path("addons.yaml"))
	// What kubectl remembers of a server belongs into the cluster's folder too.
	apply.Env = append(os.Environ(), "KUBECACHEDIR="+k.cfg.path("kubectl"))
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", k.cfg.path("addons.yaml"), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (k *keeper) startScheduler() error {
	if err := k.writeJSON("kube-scheduler.json", map[string]any{
		"apiVersion":       "kubescheduler.config.k8s.io/v1",
		"kind":             "KubeSchedulerConfiguration",
		"leaderElection":   map[string]any{"leaderElect": false},
		"clientConnection": map[string]any{"kubeconfig": k.kubeconfigOf(components.Scheduler), "qps": 300, "burst": 600},
	}); err != nil {
		return err
	}
	k.run(components.Scheduler, []string{"--config=" + k.cfg.path("kube-scheduler.json"), "--secure-port=0"})
	return nil
}

func (k *keeper) startKubelet() error {
	serving, err := k.credentials.authority.Issue("kubelet-serving", pki.Identity{
		User: "system:node:" + NodeName, Names: []string{NodeName, k.cfg.nodeAddress().String()},
	})
	if err != nil {
		return err
	}
	if err := k.writeJSON("kubelet.json", map[string]any{
		"apiVersion":         "kubelet.config.k8s.io/v1beta1",
		"kind":               "KubeletConfiguration",
		"tlsCertFile":        serving.Cert,
		"tlsPrivateKeyFile":  serving.Key,
		"rotateCertificates": false,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": k.credentials.authority.CA().Cert},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + k.cfg.ContainerdSocket(),
		"clusterDNS":               []string{k.cfg.dnsAddress().String()},
		"clusterDomain":            "cluster.local",
		"resolvConf":               k.cfg.path("resolv.conf"),
		"podLogsDir":               k.cfg.path("pod-logs"),
		"volumePluginDir":          k.cfg.path("volume-plugins"),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               k.cfg.cgroup(),
		"failCgroupV1":             false, // many machines that tests run on have nothing else
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{"none"},
		"maxPods":                  250,
		"kubeAPIQPS":               300,
		"kubeAPIBurst":             600,
		"serializeImagePulls":      false,
		"oomScoreAdj":              0, // lowering it needs a privilege that containers do not have
		// A machine that is used for other things too is not this node's to keep tidy.
		"evictionHard": map[string]string{
			"memory.available": "50Mi", "nodefs.available": "100Mi", "nodefs.inodesFree": "1000", "imagefs.available": "100Mi",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}); err != nil {
		return err
	}
	k.run(components.Kubelet, []string{
		"--config=" + k.cfg.path("kubelet.json"),
		"--kubeconfig=" + k.kubeconfigOf(components.Kubelet),
		"--root-dir=" + k.cfg.path("kubelet"),
		"--cert-dir=" + k.cfg.path("pki"),
		"--hostname-override=" + NodeName,
		"--node-ip=" + k.cfg.nodeAddress().String(),
	})
	return nil
}

func (k *keeper) startProxy() error {
	if err := k.writeJSON("kube-proxy.json", map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clusterCIDR":        k.cfg.Ranges.Pods.String(),
		"hostnameOverride":   NodeName,
		"bindAddress":        k.cfg.nodeAddress().String(),
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"clientConnection":   map[string]any{"kubeconfig": k.kubeconfigOf(components.Proxy), "qps": 300, "burst": 600},
		// The kernel's table of connections is the host's to size.
		"conntrack":   map[string]any{"maxPerCore": 0, "min": 0},
		"oomScoreAdj": 0,
	}); err != nil {
		return err
	}
	k.run(components.Proxy, []string{"--config=" + k.cfg.path("kube-proxy.json")})
	return nil
}

// waitForNode returns when the node is ready and a name of a Service is answered by way of a Service.
func (k *keeper) waitForNode(ctx context.Context) error {
	if err := k.until(ctx, "the node is ready", 2*time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
		var node struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
		if err := k.api.get(ctx, "/api/v1/nodes/"+NodeName, &node); err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" {
				if condition.Status == "True" {
					return nil
				}
				return fmt.Errorf("it is not: %s", condition.Message)
			}
		}
		return fmt.Errorf("its kubelet has not said so yet")
	}); err != nil {
		return err
	}
	k.progress("the node is ready")

	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(k.cfg.dnsAddress().String(), "53"))
	}}
	if err := k.until(ctx, "names are resolved", 2*time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err
	}); err != nil {
		return err
	}
	k.progress("names are resolved")
	return nil
}

// render writes a file of the cluster's folder from a template.
func (k *keeper) render(name, text string) error {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return fmt.Errorf("parse the template of %s: %w", name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{
		"Dir":        k.cfg.Dir,
		"Containerd": k.cfg.ContainerdSocket(),
		"CNIPlugins": k.cfg.CNIPlugins,
		"DNSAddress": k.cfg.dnsAddress(),
		"CoreDNS":    k.cfg.Images[components.CoreDNS].Ref,
		"Pause":      k.cfg.Images[components.Pause].Ref,
	}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.WriteFile(k.cfg.path(name), []byte(b.String()), 0o600)
}

// writeJSON writes a file of the cluster's folder, and the folder it is in. JSON is YAML: Kubernetes' programs take it.
func (k *keeper) writeJSON(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		if err := os.MkdirAll(k.cfg.path(name[:i]), 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(k.cfg.path(name), data, 0o600)
}
