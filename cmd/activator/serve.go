package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/zapr"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/kube/cluster"
	"github.com/dormouse-dev/dormouse/scaling/kube/members"
	"github.com/dormouse-dev/dormouse/scaling/kube/mirror"
	"github.com/dormouse-dev/dormouse/scaling/kube/resource"
)

// clusterOptions is every flag of an activator in a cluster, besides those of all activators.
type clusterOptions struct {
	options
	trustOptions

	kubeconfig    string
	namespaces    []string
	clusterDomain string
	hostClaims    map[string]string
	ports         string
	peersSelector string
	lease         string

	http, https, control, metrics string
	tlsCert, tlsKey               string

	// Of this pod, from the environment; empty: we are none.
	podName, podNamespace, podUID string
}

func serveCommand() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Front the ElasticServices of a Kubernetes cluster: wake each at its first request, put it to sleep when idle",
		Long: `Front the ElasticServices of a Kubernetes cluster: wake each at its first request, put it to sleep when idle.

In a pod it uses the pod's service account, and needs $POD_NAME, $POD_NAMESPACE and $POD_UID. Elsewhere it uses --kubeconfig, or what
kubectl would use. The Helm chart sets all of it. SIGTERM finishes what is open; a second one does not wait.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			o.podName, o.podNamespace, o.podUID = os.Getenv("POD_NAME"), os.Getenv("POD_NAMESPACE"), os.Getenv("POD_UID")
			if err := o.check(); err != nil {
				return err
			}
			logger, flush, err := newLogger(o.logFormat, o.logLevel, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer flush()
			return runServe(cmd.Context(), &o, logger)
		},
	}
	o.registerServe(cmd)
	return withEnvironment(cmd)
}

func (o *clusterOptions) registerServe(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "a kubeconfig file; empty: the pod's service account, else what kubectl would use")
	flags.StringSliceVar(&o.namespaces, "namespaces", nil, "the namespaces whose ElasticServices are served; empty: all")
	flags.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "what the cluster's DNS names end in")
	flags.StringToStringVar(&o.hostClaims, "host-claims", nil, "hosts that only one namespace may route, such as shop.example.com=web")
	flags.StringVar(&o.ports, "ports", "10000-29999", "the ports that ElasticServices get one of their own from")
	flags.StringVar(&o.lease, "lease", "dormouse", "the Lease in $POD_NAMESPACE by which the activators choose the one that puts targets to sleep")
	flags.StringVar(&o.peersSelector, "peers-selector", "", "labels of the activators' pods, in $POD_NAMESPACE")
	flags.StringVar(&o.http, "http", ":8080", "where clients connect, in clear text; empty: nowhere")
	flags.StringVar(&o.https, "https", "", "where clients connect by TLS, such as :8443; empty: nowhere")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "the certificate for --https, a PEM file; read again when it changes")
	flags.StringVar(&o.tlsKey, "tls-key", "", "its key, a PEM file")
	flags.StringVar(&o.control, "control", "127.0.0.1:8012", "address of the elastiserver's API, a loopback one unless callers have to say who they are; empty: off")
	flags.StringVar(&o.metrics, "metrics", ":9090", "where /metrics, /healthz and /readyz are served")
	o.options.register(flags, 5*time.Second)
	o.trustOptions.register(flags)
}

func (o *clusterOptions) check() error {
	var problems []error
	bad := func(flag, format string, args ...any) {
		problems = append(problems, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	if err := o.options.check(); err != nil {
		problems = append(problems, err)
	}
	if _, err := o.portRange(); err != nil {
		bad("ports", "%v", err)
	}
	for _, namespace := range o.namespaces {
		if len(validation.IsDNS1123Label(namespace)) > 0 {
			bad("namespaces", "%q is no name of a namespace", namespace)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(o.hostClaims)) {
		if namespace := o.hostClaims[host]; len(validation.IsDNS1123Label(namespace)) > 0 {
			bad("host-claims", "%q, for %q, is no name of a namespace", namespace, host)
		}
	}
	if _, err := labels.Parse(o.peersSelector); err != nil {
		bad("peers-selector", "%q is no label selector: %v", o.peersSelector, err)
	}
	if o.podNamespace != "" && o.peersSelector == "" {
		bad("peers-selector", "in a pod, name the labels that all activators have, such as app.kubernetes.io/name=dormouse")
	}
	if (o.podName == "") != (o.podNamespace == "") || (o.podName == "") != (o.podUID == "") {
		problems = append(problems, errors.New("$POD_NAME, $POD_NAMESPACE and $POD_UID belong together; set all, or none"))
	}
	if len(validation.IsDNS1123Subdomain(o.lease)) > 0 {
		bad("lease", "%q is no name of a Lease; use one such as dormouse", o.lease)
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		bad("tls-cert", "--tls-cert and --tls-key belong together; set both, or neither")
	}
	if o.https != "" && o.tlsCert == "" {
		bad("https", "%s needs a certificate; set --tls-cert and --tls-key", o.https)
	}
	problems = append(problems, o.trustOptions.check(o.control, o.podNamespace)...)
	return usage(problems...)
}

// portRange returns the first and the last of the services' own ports.
func (o *clusterOptions) portRange() (r mirror.PortRange, err error) {
	first, last, ok := strings.Cut(o.ports, "-")
	from, errFirst := strconv.ParseUint(first, 10, 16)
	to, errLast := strconv.ParseUint(last, 10, 16)
	if !ok || errFirst != nil || errLast != nil || from < 1024 || to < from {
		return r, fmt.Errorf("%q is not a range of ports from 1024 to 65535, such as 10000-29999", o.ports)
	}
	return mirror.PortRange{From: int32(from), To: int32(to)}, nil
}

// restConfig finds the API server as kubectl does, but that in a pod the service account comes first.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		if config, err := rest.InClusterConfig(); !errors.Is(err, rest.ErrNotInCluster) {
			return config, err
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}

// replica is everything that runs in an activator in a cluster.
type replica struct {
	core
	options   *clusterOptions
	cluster   *cluster.Cluster
	backend   *kube.Backend
	members   *members.Members
	resources *resource.Controller
	mirror    *mirror.Mirror
	fleet     *fleet // nil: this activator is no pod, and the only one
}

// runServe runs until ctx ends and all that is open is finished.
func runServe(ctx context.Context, o *clusterOptions, logger *zap.Logger) error {
	logKubernetes(logger.Named("kubernetes"))
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	r := &replica{core: core{options: &o.options, logger: logger, draining: make(chan struct{})}, options: o}
	if err := r.listen(ctx, addresses{
		http: o.http, https: o.https, control: o.control, metrics: o.metrics,
		callersKnown: o.on(),
		name:         func(what string) string { return "--" + what },
	}); err != nil {
		return err
	}
	if o.namespaces, err = cluster.Readable(ctx, config, o.namespaces, logger); err != nil {
		return err
	}
	if err := r.assemble(config); err != nil {
		return err
	}
	if r.door != nil {
		r.door.open(&r.sockets)
	}
	parts := []part{
		{"cache", r.cluster.Cache.Start},
		{"members", r.members.Run},
		{"endpoints", r.backend.Run},
		{"resources", r.resources.Run},
		{"mirror", r.mirror.Run},
		{"certificates", r.keepCertificates},
	}
	return r.core.run(ctx, func() {}, r.announce, append(parts, r.fleet.parts(r.draining)...)...)
}

// assemble makes the parts and connects them. Nothing runs yet.
func (r *replica) assemble(config *rest.Config) (err error) {
	selector, err := labels.Parse(r.options.peersSelector)
	if err != nil {
		return err
	}
	r.cluster, err = cluster.Connect(cluster.Options{
		Config: config, Namespaces: r.options.namespaces, PodNamespace: r.options.podNamespace, PodSelector: selector,
	})
	if err != nil {
		return err
	}
	r.members = members.New(r.cluster, r.options.podNamespace, r.options.podName, r.logger.Named("members"))
	r.backend = kube.New(kube.Options{
		Cluster: r.cluster, Logger: r.logger.Named("endpoints"),
		Waiting:  func(key scaling.Key) int { return r.scaler.Waiting(key) },
		Own:      r.members.Own,
		MaySleep: r.maySleep,
	})
	registry, err := r.count(r.backend)
	if err != nil {
		return err
	}
	if r.door, err = newDoor(r.options, r.cluster.Kube, r.counters, r.logger.Named("control")); err != nil {
		return err
	}
	r.join()
	r.gates.Notify = func(key scaling.Key) {
		r.elasti.Notify(key)
		r.backend.Awaited(key)
	}
	r.gates.Suspect = r.backend.Suspect
	resources := resource.Options{
		Cluster: r.cluster, Logger: r.logger.Named("resources"), Scaler: r.scaler, Backend: r.backend,
		Adopt: r.adopt, Writes: r.members.First, SleepSuspended: r.sleepSuspended,
		Finalize: len(r.options.namespaces) == 0, // with a Role in each, the right to remove it would go with a namespace
	}
	if r.fleet != nil {
		resources.Elsewhere = r.fleet.Activity
	}
	r.resources = resource.New(resources)
	r.elasti.KeepPins(r.resources)
	r.knows = r.resources.Adopted
	ports, err := r.options.portRange()
	if err != nil {
		return err
	}
	r.mirror = mirror.New(mirror.Options{
		Cluster: r.cluster, Members: r.members, Logger: r.logger.Named("mirror"),
		Writes: r.members.First, Report: r.resources.Report, PortRange: ports,
	})
	return r.core.assemble(registry, activator.Config{
		Certificate: r.options.tlsCert, Key: r.options.tlsKey,
		Routes:    route.Options{ClusterDomain: r.options.clusterDomain, Claims: r.options.hostClaims},
		Withdrawn: r.withdrawn,
	}, latched(r.resources.Adopted), latched(r.backend.Synced), latched(r.fleet.serves))
}

// latched stays true once ready was: what comes later must not take from a service its activators.
func latched(ready func() bool) func() bool {
	var was atomic.Bool
	return func() bool {
		if !was.Load() && ready() {
			was.Store(true)
		}
		return was.Load()
	}
}

// adopt makes definitions the services that are known, to each part before those that tell it of them; the routes,
// through which requests tell, come last.
func (r *replica) adopt(definitions []*kube.Definition, ports map[int32]scaling.Key) []resource.Conflict {
	services := make([]*scaling.Service, len(definitions))
	for i, d := range definitions {
		services[i] = &d.Service
	}
	r.gates.Adopt(services)
	r.scaler.Adopt(services)
	r.backend.Adopt(definitions)
	refused := r.proxy.Adopt(services)
	r.proxy.AdoptPorts(ports)
	conflicts := make([]resource.Conflict, 0, len(refused))
	for _, c := range refused {
		claimed := c.Reason == route.Claimed || c.Reason == route.Pinned || c.Reason == route.Reserved
		conflicts = append(conflicts, resource.Conflict{Service: c.Service, Message: c.String(), Claimed: claimed})
	}
	return conflicts
}

// maySleep is asked just before a scale is lowered. Its answer no is for certain, so nothing is written.
func (r *replica) maySleep(ctx context.Context, target scaling.Target) error {
	if r.fleet == nil {
		return nil
	}
	return r.fleet.May(ctx, target)
}

// sleepSuspended tells why nothing is put to sleep at present, or "".
func (r *replica) sleepSuspended() string {
	if r.fleet == nil {
		return ""
	}
	if err := r.members.Problem(); err != nil {
		return err.Error()
	}
	return r.fleet.Suspended()
}

// leads tells whether this activator is the one that keeps what all of them use.
func (r *replica) leads() bool { return r.fleet == nil || r.fleet.Leads() }

// withdrawn waits until nothing leads to this activator any more, or ctx ends.
func (r *replica) withdrawn(ctx context.Context) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		var own []netip.Addr
		for _, m := range r.members.All() {
			if m.Name == r.options.podName {
				own = m.Addresses
			}
		}
		if r.mirror.Withdrawn(own...) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

func (r *replica) announce() {
	v, _, _ := build()
	namespaces := "all"
	if len(r.options.namespaces) > 0 {
		namespaces = strings.Join(r.options.namespaces, ",")
	}
	r.logger.Info("started", zap.String("namespaces", namespaces), zap.String("api-server", r.cluster.Config.Host), zap.String("version", v))
}

// logKubernetes gives the loggers of the Kubernetes libraries, which are global, to ours.
func logKubernetes(logger *zap.Logger) {
	sink := zapr.NewLogger(logger)
	klog.SetLogger(sink)
	ctrllog.SetLogger(sink)
}
