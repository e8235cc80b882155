package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"

	"github.com/dormouse-dev/dormouse/elastiserver"
	"github.com/dormouse-dev/dormouse/elastiserver/peers/stream"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling/kube/trust"
	"github.com/dormouse-dev/dormouse/scaling/kube/trust/certs"
)

// How many connections the control port keeps, of all who are no activators, and of each address.
const (
	maxControlConnections     = 1024
	maxControlConnectionsEach = 64
)

// peersPath is where the other activators connect at the control port.
const peersPath = "/peers/v1/stream"

// trustOptions is every flag that says who may use the control port.
type trustOptions struct {
	secret        string // the Secret of our namespace in which activators keep the certificate
	cert, key, ca string // or files that somebody else replaces
	name          string // that the certificate is for
	events        []string
	metrics       bool
	peersToken    string
}

func (o *trustOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.secret, "control-secret", "", "a Secret in $POD_NAMESPACE, in which the activators keep a certificate for --control; callers then have to say who they are")
	flags.StringVar(&o.cert, "control-cert", "", "instead, the certificate for --control, a PEM file; read again when it changes")
	flags.StringVar(&o.key, "control-key", "", "its key, a PEM file")
	flags.StringVar(&o.ca, "control-ca", "", "the authorities of all activators' certificates, a PEM file")
	flags.StringVar(&o.name, "control-name", "", "the DNS name that the certificate is for, such as dormouse-control.dormouse.svc")
	flags.StringSliceVar(&o.events, "unauthenticated-events", nil, "addresses or CIDR ranges that may report events without saying who they are; empty: none")
	flags.BoolVar(&o.metrics, "metrics-auth", false, "serve /metrics at --control, to those who may get it, and no longer at --metrics")
	flags.StringVar(&o.peersToken, "peers-token", "/var/run/secrets/dormouse/peers/token", "the file of the token by which other activators know this one")
}

// on reports whether the control port is served by TLS, to callers who say who they are.
func (o *trustOptions) on() bool { return o.secret != "" || o.cert != "" }

// check finds what the flags' types cannot.
func (o *trustOptions) check(control, podNamespace string) (problems []error) {
	bad := func(flag, format string, args ...any) {
		problems = append(problems, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	if o.secret != "" && o.cert != "" {
		bad("control-secret", "the certificate is in --control-cert; set one of them")
	}
	if (o.cert == "") != (o.key == "") || (o.cert == "") != (o.ca == "") {
		bad("control-cert", "--control-cert, --control-key and --control-ca belong together; set all, or none")
	}
	if o.secret != "" && podNamespace == "" {
		bad("control-secret", "the Secret is in $POD_NAMESPACE, which is not set")
	}
	if o.on() && (o.name == "" || control == "") {
		bad("control-name", "a certificate is for a port and a name; set --control and --control-name")
	}
	for flag, set := range map[string]bool{"metrics-auth": o.metrics, "unauthenticated-events": len(o.events) > 0} {
		if set && !o.on() {
			bad(flag, "nobody has to say who they are; set --control-secret or --control-cert")
		}
	}
	if _, err := prefixes(o.events); err != nil {
		bad("unauthenticated-events", "%v", err)
	}
	return problems
}

// door is the control port of an activator in a cluster: by TLS, for callers who say who they are.
type door struct {
	options      *trustOptions
	certificates *certs.Source
	keep         func(ctx context.Context, leads func() bool) error // keeps certificates current
	people       *trust.Authenticator
	authorizer   *trust.Authorizer
	peers        *trust.Peers // nil outside of a pod
	resolvers    []netip.Prefix
	counters     *metrics.Metrics
	streams      *stream.Mesh // with other activators; nil: there are none
}

var _ elastiserver.Doorkeeper = (*door)(nil)

// newDoor returns nil where the control port is for loopback alone.
func newDoor(o *clusterOptions, client kubernetes.Interface, counters *metrics.Metrics, logger *zap.Logger) (*door, error) {
	t := &o.trustOptions
	if !t.on() {
		return nil, nil //nolint:nilnil // there is none
	}
	resolvers, err := prefixes(t.events)
	if err != nil {
		return nil, err
	}
	d := &door{
		options: t, certificates: certs.NewSource(t.name), resolvers: resolvers, counters: counters,
		people:     trust.NewAuthenticator(client.AuthenticationV1().TokenReviews()),
		authorizer: trust.NewAuthorizer(client.AuthorizationV1().SubjectAccessReviews()),
	}
	if account := os.Getenv("POD_SERVICE_ACCOUNT"); account != "" && o.podNamespace != "" {
		own := trust.NewAuthenticator(client.AuthenticationV1().TokenReviews())
		d.peers = trust.NewPeers(own, o.podNamespace, account)
	}
	if t.secret != "" {
		keeper := &certs.Keeper{
			Secrets: client.CoreV1().Secrets(o.podNamespace), Secret: t.secret, Source: d.certificates, Logger: logger,
			Names: []string{t.name, t.name + "." + strings.Trim(o.clusterDomain, ".")},
		}
		d.keep = keeper.Run
	} else {
		files := &certs.Files{Certificate: t.cert, Key: t.key, Authorities: t.ca, Source: d.certificates, Logger: logger}
		d.keep = func(ctx context.Context, _ func() bool) error { return files.Run(ctx) }
	}
	return d, nil
}

// Who implements [elastiserver.Doorkeeper].
func (d *door) Who(r *http.Request) (elastiserver.Caller, error) {
	user, err := d.people.Who(r.Context(), trust.Bearer(r), "")
	if err != nil {
		return nil, translate(err)
	}
	return &caller{user, d.authorizer}, nil
}

// Peer implements stream.Authorizer: it returns the UID of the activator's pod that makes a request.
func (d *door) Peer(r *http.Request) (uid string, err error) {
	if d.peers == nil {
		return "", trust.ErrForbidden
	}
	return d.peers.Peer(r)
}

// peerRefused counts what comes of stream.Options.Refused.
func (d *door) peerRefused(status int) {
	switch status {
	case http.StatusUnauthorized:
		d.counters.ControlRefused(metrics.ControlUnauthenticated)
	case http.StatusForbidden:
		d.counters.ControlRefused(metrics.ControlForbidden)
	case http.StatusServiceUnavailable:
		d.counters.ControlRefused(metrics.ControlUnavailable)
	}
}

// clientTLS is what a connection to another activator is made with.
func (d *door) clientTLS() *tls.Config { return d.certificates.Client() }

// token is by what another activator knows this one. The kubelet replaces the file before the token expires.
func (d *door) token() (string, error) {
	text, err := os.ReadFile(d.options.peersToken)
	if err != nil {
		return "", fmt.Errorf("read the token for other activators: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// open gives the control port a certificate, and bounds its connections.
func (d *door) open(s *sockets) {
	bounded := bound(s.control, maxControlConnections, maxControlConnectionsEach, d.leadsToActivator)
	s.control = tls.NewListener(bounded, d.certificates.Server())
}

// leadsToActivator tells whether an address is another activator's. It gives a place to wait in, and no rights.
func (d *door) leadsToActivator(address netip.Addr) bool {
	return d.streams != nil && d.streams.Knows(address)
}

// handler is what the control port serves.
func (d *door) handler(elasti *elastiserver.Server, scrape http.Handler) http.Handler {
	elasti.Guard(d, d.resolvers...)
	mux := http.NewServeMux()
	mux.Handle("/", elasti.Handler())
	if d.streams != nil {
		mux.Handle(peersPath, d.streams)
	}
	if d.options.metrics {
		mux.Handle("GET /metrics", elasti.Admitting(elastiserver.Right{Verb: "get", Path: "/metrics"}, scrape))
	}
	return mux
}

// keepCertificates keeps the control port's certificate current until ctx ends.
func (r *replica) keepCertificates(ctx context.Context) error {
	if r.door == nil {
		<-ctx.Done()
		return nil
	}
	return r.door.keep(ctx, r.leads)
}

// caller is a user of the cluster.
type caller struct {
	user       trust.User
	authorizer *trust.Authorizer
}

// May implements [elastiserver.Caller].
func (c *caller) May(ctx context.Context, right elastiserver.Right) error {
	return translate(c.authorizer.May(ctx, c.user, trust.Access{
		Verb: right.Verb, Subresource: right.Subresource, Service: right.Service, Path: right.Path,
	}))
}

// translate gives errors of trust to elastiserver, which knows no Kubernetes.
func translate(err error) error {
	switch {
	case errors.Is(err, trust.ErrUnauthenticated):
		return elastiserver.ErrUnauthenticated
	case errors.Is(err, trust.ErrForbidden):
		return elastiserver.ErrForbidden
	}
	return err
}
