package resource

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// authority is what was found in the ConfigMap that a resource names for its endpoints' certificates.
type authority struct {
	pem     string
	problem string // why there is no pem; empty: none
}

// compile makes of a resource what the rest of Dormouse knows of it, and returns the mistakes in it, each with its field.
// With mistakes the definition lacks what they are about, and serves for nothing but to wake its target. It leaves
// defaults to the API server, and trusts nothing else to it: resources may be older than a rule of their schema.
func compile(es *v1alpha1.ElasticService, ca authority) (*kube.Definition, field.ErrorList) {
	c := compiler{namespace: es.Namespace, ca: ca}
	spec, at := &es.Spec, field.NewPath("spec")
	if !isLabel(es.Name, maxName) {
		c.invalid(field.NewPath("metadata", "name"), es.Name, "must be a DNS label of at most %d characters", maxName)
	}
	d := &kube.Definition{
		Service: scaling.Service{
			Key:      scaling.Key{Namespace: es.Namespace, Name: es.Name},
			Target:   c.target(&spec.ScaleTargetRef, at.Child("scaleTargetRef")),
			Routes:   c.routes(spec.Routes, at.Child("routes")),
			Replicas: c.replicas(&spec.Replicas, at.Child("replicas")),
			Idle: scaling.Idle{
				After:   c.duration(spec.Idle.After, at.Child("idle", "after")),
				Initial: spec.Idle.Initial,
			},
			Hold: scaling.Hold{
				Timeout:     c.duration(spec.Hold.Timeout, at.Child("hold", "timeout")),
				MaxRequests: int(c.count(spec.Hold.MaxRequests, at.Child("hold", "maxRequests"))),
				FailFast:    spec.Hold.FailFast == nil || *spec.Hold.FailFast,
			},
			Upstream: c.upstream(spec, at.Child("endpoint")),
			Timeouts: scaling.Timeouts{
				Dial:           c.duration(spec.Timeouts.Dial, at.Child("timeouts", "dial")),
				ResponseHeader: c.duration(spec.Timeouts.ResponseHeader, at.Child("timeouts", "responseHeader")),
				Idle:           c.duration(spec.Timeouts.Idle, at.Child("timeouts", "idle")),
				Total:          c.duration(spec.Timeouts.Total, at.Child("timeouts", "total")),
			},
			History: history(&es.Status),
			Created: es.CreationTimestamp.Time,
		},
		ServiceName: spec.Service.Name,
		Port:        c.port(spec.Service.Port, at.Child("service", "port")),
		TargetRef: kube.TargetRef{
			APIVersion: spec.ScaleTargetRef.APIVersion, Kind: spec.ScaleTargetRef.Kind, Name: spec.ScaleTargetRef.Name,
		},
		AwaitEndpoints: c.awaitEndpoints(spec.Readiness.Mode, at.Child("readiness", "mode")),
	}
	if d.ServiceName == "" {
		c.mistakes = append(c.mistakes, field.Required(at.Child("service", "name"), "it is the Service whose endpoints answer"))
	}
	switch spec.OnDelete {
	case "", v1alpha1.DeleteWake, v1alpha1.DeleteLeave:
	default:
		c.invalid(at.Child("onDelete"), string(spec.OnDelete), "must be Wake or Leave")
	}
	return d, c.mistakes
}

type compiler struct {
	namespace string
	ca        authority
	mistakes  field.ErrorList
}

func (c *compiler) invalid(at *field.Path, value any, format string, args ...any) {
	c.mistakes = append(c.mistakes, field.Invalid(at, value, fmt.Sprintf(format, args...)))
}

func (c *compiler) target(ref *v1alpha1.ScaleTargetReference, at *field.Path) scaling.Target {
	// They become parts of URLs, so that one with a slash or dots would lead elsewhere.
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil || !isVersion(gv.Version) || gv.Group != "" && !isName(gv.Group) {
		c.invalid(at.Child("apiVersion"), ref.APIVersion, "must be a group and a version, such as apps/v1")
	}
	switch {
	case ref.Kind == "":
		c.mistakes = append(c.mistakes, field.Required(at.Child("kind"), "it is what to scale, such as Deployment"))
	case !isVersion(strings.ToLower(ref.Kind)):
		c.invalid(at.Child("kind"), ref.Kind, "must be a kind, such as Deployment")
	}
	switch {
	case ref.Name == "":
		c.mistakes = append(c.mistakes, field.Required(at.Child("name"), "it is what to scale"))
	case !isName(ref.Name):
		c.invalid(at.Child("name"), ref.Name, mustBeName)
	}
	kind := ref.Kind
	if gv.Group != "" {
		kind += "." + gv.Group
	}
	return scaling.Target{Namespace: c.namespace, Kind: kind, Name: ref.Name}
}

func (c *compiler) port(port *intstr.IntOrString, at *field.Path) *intstr.IntOrString {
	if port == nil {
		return nil
	}
	if port.Type == intstr.Int && (port.IntVal < 1 || port.IntVal > 65535) {
		c.invalid(at, port.IntVal, "must be from 1 to 65535, or the name of one of the Service's ports")
	}
	if port.Type == intstr.String && !isLabel(port.StrVal, maxLabel) {
		c.invalid(at, port.StrVal, "must be the name of one of the Service's ports, or a number from 1 to 65535")
	}
	own := *port
	return &own
}

func (c *compiler) replicas(r *v1alpha1.Replicas, at *field.Path) scaling.Replicas {
	replicas := scaling.Replicas{
		Min: c.count(r.Min, at.Child("min")), Wake: c.count(r.Wake, at.Child("wake")), Max: c.count(r.Max, at.Child("max")),
	}
	switch {
	case replicas.Max > 0 && replicas.Min > replicas.Max:
		c.invalid(at.Child("max"), r.Max, "must be 0 (no bound) or at least min, %d", r.Min)
	case replicas.Max > 0 && replicas.Wake > replicas.Max:
		c.invalid(at.Child("max"), r.Max, "must be 0 (no bound) or at least wake, %d", r.Wake)
	case replicas.Wake > 0 && replicas.Wake < replicas.Min:
		c.invalid(at.Child("wake"), r.Wake, "must be 0 (as many as before) or at least min, %d", r.Min)
	}
	return replicas
}

func (c *compiler) upstream(spec *v1alpha1.ElasticServiceSpec, at *field.Path) scaling.Upstream {
	e := &spec.Endpoint
	upstream := scaling.Upstream{
		Protocol:       c.protocol(e.Protocol, at.Child("protocol")),
		MaxConcurrency: int(c.count(e.MaxConcurrency, at.Child("maxConcurrency"))),
		// The certificate of a Service is for its name in the cluster, not for that of the resource.
		TLS: scaling.UpstreamTLS{ServerName: spec.Service.Name + "." + c.namespace + ".svc"},
	}
	if e.TLS == nil {
		return upstream
	}
	at = at.Child("tls")
	if p := upstream.Protocol; p == scaling.ProtocolHTTP1 || p == scaling.ProtocolH2C {
		c.invalid(at, "", "is of no effect where endpoint.protocol is %v; it must be HTTPS, or Auto", p)
	}
	if e.TLS.ServerName != "" {
		upstream.TLS.ServerName = e.TLS.ServerName
	}
	upstream.TLS.InsecureSkipVerify = e.TLS.InsecureSkipVerify
	if e.TLS.CAConfigMap != "" {
		upstream.TLS.CA = c.authority(e.TLS.CAConfigMap, at.Child("caConfigMap"))
	}
	return upstream
}

func (c *compiler) authority(name string, at *field.Path) string {
	switch {
	case !isName(name):
		c.invalid(at, name, mustBeName)
	case c.ca.problem != "":
		c.invalid(at, name, "%s", c.ca.problem)
	case !x509.NewCertPool().AppendCertsFromPEM([]byte(c.ca.pem)):
		c.invalid(at, name, "key %s of the ConfigMap has no certificate in PEM form", authorityKey)
	default:
		return c.ca.pem
	}
	return ""
}

func (c *compiler) protocol(p v1alpha1.Protocol, at *field.Path) scaling.Protocol {
	switch p {
	case v1alpha1.ProtocolHTTP1:
		return scaling.ProtocolHTTP1
	case v1alpha1.ProtocolH2C:
		return scaling.ProtocolH2C
	case v1alpha1.ProtocolHTTPS:
		return scaling.ProtocolHTTPS
	case "", v1alpha1.ProtocolAuto:
	default:
		c.invalid(at, string(p), "must be Auto, HTTP1, H2C or HTTPS")
	}
	return scaling.ProtocolAuto
}

func (c *compiler) awaitEndpoints(mode v1alpha1.ReadinessMode, at *field.Path) bool {
	switch mode {
	case v1alpha1.ReadinessEndpoints:
		return true
	case "", v1alpha1.ReadinessAuto:
	default:
		c.invalid(at, string(mode), "must be Auto or Endpoints")
	}
	return false
}

func (c *compiler) count(n int32, at *field.Path) int32 {
	if n < 0 {
		c.invalid(at, n, "must be 0 or more")
		return 0
	}
	return n
}

// duration reads what the schema allows: at most 32 characters, which hold more hours than fit.
func (c *compiler) duration(d v1alpha1.Duration, at *field.Path) time.Duration {
	if d == "" {
		return 0
	}
	parsed, err := time.ParseDuration(string(d))
	switch {
	case err == nil && parsed >= 0:
		return parsed
	case err == nil:
		c.invalid(at, string(d), "must be 0s or more")
	case strings.Trim(string(d), "0123456789.hms") == "":
		c.invalid(at, string(d), "must be a duration of at most 290 years, such as 90s or 1h30m")
	default:
		c.invalid(at, string(d), "must be a duration, such as 90s or 1h30m")
	}
	return 0
}

// history is what the status has kept of earlier processes. Where a target was last seen awake, what it had then is what
// it had before whoever has put it to sleep since.
func history(status *v1alpha1.ElasticServiceStatus) scaling.History {
	h := scaling.History{Wake: max(status.WakeReplicas, 0), Carried: status.LastActiveTime != nil}
	if status.Phase == scaling.StateAwake.String() && status.Replicas != nil && *status.Replicas > 0 {
		h.Wake = *status.Replicas
	}
	return h
}
