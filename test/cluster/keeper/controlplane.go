package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dormouse-dev/dormouse/test/cluster/components"
	"github.com/dormouse-dev/dormouse/test/cluster/pki"
)

// credentials are the files that the parts of the control plane prove who they are with, and check others.
type credentials struct {
	authority       *pki.Authority
	server          pki.Pair       // the API server's
	toKubelet       pki.Pair       // the API server's, when it calls the kubelet
	frontProxy      *pki.Authority // vouches for who passes on requests for others
	toExtensions    pki.Pair       // the API server's, when it passes requests on to another
	admin           pki.Pair       // the keeper's
	private, public string         // what ServiceAccount tokens are signed and checked with
}

// issue makes everything that the control plane's parts need to trust each other, and the administrator's kubeconfig.
func (k *keeper) issue() error {
	authority, err := pki.NewAuthority(k.cfg.path("pki"))
	if err != nil {
		return err
	}
	c := &credentials{authority: authority}
	admin := pki.Identity{User: "admin", Groups: []string{"system:masters"}}
	if c.server, err = authority.Issue("kube-apiserver", pki.Identity{User: "kube-apiserver", Names: []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"127.0.0.1", k.cfg.apiAddress().String(), nth(k.cfg.Ranges.Services, 1).String(),
	}}); err != nil {
		return err
	}
	if c.toKubelet, err = authority.Issue("kube-apiserver-kubelet", pki.Identity{User: "kube-apiserver"}); err != nil {
		return err
	}
	// An authority of its own: whom it vouches for may say to be anyone.
	if c.frontProxy, err = pki.NewAuthority(k.cfg.path("pki", "front-proxy")); err != nil {
		return err
	}
	if c.toExtensions, err = c.frontProxy.Issue("client", pki.Identity{User: "front-proxy-client"}); err != nil {
		return err
	}
	if c.admin, err = authority.Issue("admin", admin); err != nil {
		return err
	}
	if c.private, c.public, err = authority.SigningKey("service-account"); err != nil {
		return err
	}
	for name, who := range map[string]pki.Identity{
		"kube-controller-manager": {User: "system:kube-controller-manager"},
		"kube-scheduler":          {User: "system:kube-scheduler"},
		"kube-proxy":              {User: "system:kube-proxy"},
		"kubelet":                 {User: "system:node:" + NodeName, Groups: []string{"system:nodes"}},
	} {
		if err := authority.Kubeconfig(k.cfg.path("pki", name+".kubeconfig"), k.cfg.Server(), who); err != nil {
			return err
		}
	}
	k.credentials = c
	return authority.Kubeconfig(k.cfg.Kubeconfig(), k.cfg.Server(), admin)
}

// startStore starts etcd and the API server. They need each other for nothing but patience: the API server asks until
// etcd answers.
func (k *keeper) startStore() {
	client, peer := "unix://"+k.cfg.path("etcd.sock"), "unix://"+k.cfg.path("etcd-peer.sock")
	k.run(components.Etcd, []string{
		"--name=etcd",
		"--data-dir=" + k.cfg.path("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=etcd=" + peer,
		"--unsafe-no-fsync", // nobody needs what a test wrote once the machine has crashed
		"--log-level=warn",
	})

	args := []string{
		"--etcd-servers=" + client,
		"--secure-port=" + fmt.Sprint(k.cfg.APIPort),
		"--bind-address=" + k.bindAddress(),
		"--tls-cert-file=" + k.credentials.server.Cert,
		"--tls-private-key-file=" + k.credentials.server.Key,
		"--client-ca-file=" + k.credentials.authority.CA().Cert,
		"--anonymous-auth=false",
		"--proxy-client-cert-file=" + k.credentials.toExtensions.Cert,
		"--proxy-client-key-file=" + k.credentials.toExtensions.Key,
		"--requestheader-client-ca-file=" + k.credentials.frontProxy.CA().Cert,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + k.credentials.private,
		"--service-account-key-file=" + k.credentials.public,
		"--service-cluster-ip-range=" + k.cfg.Ranges.Services.String(),
		"--allow-privileged=true",
		"--profiling=false",
	}
	if k.cfg.ControlPlaneOnly {
		// Endpoints cannot have a loopback address, and without pods nobody looks for the API server's.
		args = append(args, "--endpoint-reconciler-type=none")
	} else {
		args = append(args,
			"--advertise-address="+k.cfg.nodeAddress().String(),
			"--kubelet-client-certificate="+k.credentials.toKubelet.Cert,
			"--kubelet-client-key="+k.credentials.toKubelet.Key,
			"--kubelet-certificate-authority="+k.credentials.authority.CA().Cert,
			"--kubelet-preferred-address-types=InternalIP",
		)
	}
	k.run(components.APIServer, args)
}

// startControllers starts the controller manager. It listens nowhere: nobody asks it anything.
func (k *keeper) startControllers() {
	ca := k.credentials.authority.CA()
	k.run(components.ControllerManager, []string{
		"--kubeconfig=" + k.kubeconfigOf(components.ControllerManager),
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + k.credentials.private,
		"--root-ca-file=" + ca.Cert,
		"--cluster-signing-cert-file=" + ca.Cert,
		"--cluster-signing-key-file=" + ca.Key,
		"--cluster-name=dormouse",
		"--flex-volume-plugin-dir=" + k.cfg.path("volume-plugins"), // its default is made, wherever that is
		// Its default, 20 requests a second, is slower than tests put services to sleep.
		"--kube-api-qps=300",
		"--kube-api-burst=600",
	})
}

// waitForAPI returns when the API server says that it is ready.
func (k *keeper) waitForAPI(ctx context.Context) error {
	return k.until(ctx, "the API server is ready", 60*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		return k.api.get(ctx, "/readyz", nil)
	})
}

// waitForControllers returns when the controllers work: pods can be made in a namespace once it has a ServiceAccount.
func (k *keeper) waitForControllers(ctx context.Context) error {
	return k.until(ctx, "the controllers made the default ServiceAccount", 60*time.Second, 20*time.Millisecond,
		func(ctx context.Context) error {
			return k.api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
		})
}

func (k *keeper) bindAddress() string {
	if k.cfg.ControlPlaneOnly {
		return k.cfg.apiAddress().String()
	}
	return "0.0.0.0" // in the cluster's own network: pods and the host come by different addresses
}

func (k *keeper) kubeconfigOf(name components.Name) string {
	return k.cfg.path("pki", string(name)+".kubeconfig")
}

// run starts a component from its program, under its own name.
func (k *keeper) run(name components.Name, args []string) {
	k.components.start(string(name), k.cfg.Log(string(name)), append([]string{k.cfg.Programs[name]}, args...))
}

// until asks, every pause, until the answer is nil. It gives up after a time, with the last answer, and when ctx ends.
func (k *keeper) until(ctx context.Context, what string, most, pause time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not after %v", most))
	defer cancel()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	last := errors.New("none")
	for {
		if err := ask(ctx); err == nil {
			return nil
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; the last answer: %w", what, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}
