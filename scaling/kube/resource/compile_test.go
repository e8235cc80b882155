package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// shop is a resource as the API server hands it out, its defaults filled in.
func shop() *v1alpha1.ElasticService {
	return &v1alpha1.ElasticService{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "shop"},
		Spec: v1alpha1.ElasticServiceSpec{
			Service:        v1alpha1.ServiceReference{Name: "shop"},
			ScaleTargetRef: v1alpha1.ScaleTargetReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop"},
			Idle:           v1alpha1.Idle{After: "5m"},
			Hold:           v1alpha1.Hold{Timeout: "2m", MaxRequests: 10_000, FailFast: new(true)},
			Endpoint:       v1alpha1.Endpoint{Protocol: v1alpha1.ProtocolAuto},
			Timeouts:       v1alpha1.Timeouts{Dial: "1s", ResponseHeader: "0s", Idle: "0s", Total: "0s"},
			Readiness:      v1alpha1.Readiness{Mode: v1alpha1.ReadinessAuto},
			OnDelete:       v1alpha1.DeleteWake,
		},
	}
}

func TestAResourceOfDefaultsIsCompiled(t *testing.T) {
	d, mistakes := compile(shop(), authority{})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := &kube.Definition{
		Service: scaling.Service{
			Key:      scaling.Key{Namespace: "web", Name: "shop"},
			Target:   scaling.Target{Namespace: "web", Kind: "Deployment.apps", Name: "shop"},
			Routes:   []scaling.Route{},
			Idle:     scaling.Idle{After: 5 * time.Minute},
			Hold:     scaling.Hold{Timeout: 2 * time.Minute, MaxRequests: 10_000, FailFast: true},
			Upstream: scaling.Upstream{TLS: scaling.UpstreamTLS{ServerName: "shop.web.svc"}},
			Timeouts: scaling.Timeouts{Dial: time.Second},
		},
		ServiceName: "shop",
		TargetRef:   kube.TargetRef{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop"},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("compiled to\n%+v, want\n%+v", d, want)
	}
}

func TestEveryFieldIsCompiled(t *testing.T) {
	ca := certificate(t)
	created := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	es := shop()
	es.CreationTimestamp = created
	port := intstr.FromString("http")
	es.Spec = v1alpha1.ElasticServiceSpec{
		Service:        v1alpha1.ServiceReference{Name: "shop-service", Port: &port},
		ScaleTargetRef: v1alpha1.ScaleTargetReference{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "shop"},
		Routes: []v1alpha1.Route{{
			Hosts: []string{"Shop.Example.com.", "*.shop.example.com"}, Paths: []string{"/api/", "/"},
			Headers: []v1alpha1.HeaderMatch{{Name: "X-Tenant", Value: "blue"}},
		}},
		Replicas: v1alpha1.Replicas{Min: 1, Wake: 2, Max: 3},
		Idle:     v1alpha1.Idle{After: "1h30m", Initial: true},
		Hold:     v1alpha1.Hold{Timeout: "0s", MaxRequests: 7, FailFast: new(false)},
		Endpoint: v1alpha1.Endpoint{
			Protocol: v1alpha1.ProtocolHTTPS, MaxConcurrency: 5,
			TLS: &v1alpha1.EndpointTLS{ServerName: "shop.example.com", CAConfigMap: "ca"},
		},
		Timeouts:  v1alpha1.Timeouts{Dial: "2s", ResponseHeader: "3s", Idle: "4s", Total: "500ms"},
		Readiness: v1alpha1.Readiness{Mode: v1alpha1.ReadinessEndpoints},
	}
	es.Status = v1alpha1.ElasticServiceStatus{WakeReplicas: 4, LastActiveTime: &created}
	d, mistakes := compile(es, authority{pem: ca})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := &kube.Definition{
		Service: scaling.Service{
			Key:    scaling.Key{Namespace: "web", Name: "shop"},
			Target: scaling.Target{Namespace: "web", Kind: "Rollout.argoproj.io", Name: "shop"},
			Routes: []scaling.Route{{
				Hosts: []string{"shop.example.com", "*.shop.example.com"}, Paths: []string{"/api", "/"},
				Headers: []scaling.HeaderMatch{{Name: "X-Tenant", Value: "blue"}},
			}},
			Replicas: scaling.Replicas{Min: 1, Wake: 2, Max: 3},
			Idle:     scaling.Idle{After: 90 * time.Minute, Initial: true},
			Hold:     scaling.Hold{MaxRequests: 7},
			Upstream: scaling.Upstream{
				Protocol: scaling.ProtocolHTTPS, MaxConcurrency: 5,
				TLS: scaling.UpstreamTLS{ServerName: "shop.example.com", CA: ca},
			},
			Timeouts: scaling.Timeouts{Dial: 2 * time.Second, ResponseHeader: 3 * time.Second, Idle: 4 * time.Second, Total: 500 * time.Millisecond},
			History:  scaling.History{Wake: 4, Carried: true},
			Created:  created.Time,
		},
		ServiceName: "shop-service", Port: &port,
		TargetRef:      kube.TargetRef{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "shop"},
		AwaitEndpoints: true,
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("compiled to\n%+v, want\n%+v", d, want)
	}
}

func TestAMistakeNamesItsField(t *testing.T) {
	type spec = v1alpha1.ElasticServiceSpec
	tls := func(s *spec) { s.Endpoint.TLS = &v1alpha1.EndpointTLS{CAConfigMap: "ca"} }
	route := func(r v1alpha1.Route) func(*spec) { return func(s *spec) { s.Routes = []v1alpha1.Route{r} } }
	for _, c := range []struct {
		field, says string
		spoil       func(*spec)
		ca          authority
	}{
		{field: "spec.service.name", says: "Required", spoil: func(s *spec) { s.Service.Name = "" }},
		{field: "spec.service.port", says: "1 to 65535", spoil: func(s *spec) { s.Service.Port = new(intstr.FromInt32(0)) }},
		{field: "spec.service.port", says: "name of one", spoil: func(s *spec) { s.Service.Port = new(intstr.FromString("HTTP")) }},
		{field: "spec.scaleTargetRef.apiVersion", says: "apps/v1", spoil: func(s *spec) { s.ScaleTargetRef.APIVersion = "a/b/c" }},
		{field: "spec.scaleTargetRef.apiVersion", says: "apps/v1", spoil: func(s *spec) { s.ScaleTargetRef.APIVersion = "apps/" }},
		{field: "spec.scaleTargetRef.apiVersion", says: "apps/v1", spoil: func(s *spec) { s.ScaleTargetRef.APIVersion = "../v1" }},
		{field: "spec.scaleTargetRef.apiVersion", says: "apps/v1", spoil: func(s *spec) { s.ScaleTargetRef.APIVersion = "apps/.." }},
		{field: "spec.scaleTargetRef.apiVersion", says: "apps/v1", spoil: func(s *spec) { s.ScaleTargetRef.APIVersion = "ap ps/v1" }},
		{field: "spec.scaleTargetRef.kind", says: "such as Deployment", spoil: func(s *spec) { s.ScaleTargetRef.Kind = "../Deployment" }},
		{field: "spec.scaleTargetRef.name", says: "name of an object", spoil: func(s *spec) { s.ScaleTargetRef.Name = "../shop" }},
		{field: "spec.endpoint.tls.caConfigMap", says: "name of an object", spoil: func(s *spec) {
			s.Endpoint.TLS = &v1alpha1.EndpointTLS{CAConfigMap: "../ca"}
		}},
		{field: "spec.scaleTargetRef.kind", says: "Required", spoil: func(s *spec) { s.ScaleTargetRef.Kind = "" }},
		{field: "spec.scaleTargetRef.name", says: "Required", spoil: func(s *spec) { s.ScaleTargetRef.Name = "" }},
		{field: "spec.routes[0].hosts[1]", says: "scheme and port", spoil: route(v1alpha1.Route{Hosts: []string{"a", "a:80"}})},
		{field: "spec.routes[0].hosts[0]", says: "wildcard", spoil: route(v1alpha1.Route{Hosts: []string{"a.*.b"}})},
		{field: "spec.routes[0].hosts[0]", says: "63", spoil: route(v1alpha1.Route{Hosts: []string{strings.Repeat("a", 64) + ".test"}})},
		{field: "spec.routes[0].paths[0]", says: "slash", spoil: route(v1alpha1.Route{Paths: []string{"api"}})},
		{field: "spec.routes[0].paths[0]", says: "query", spoil: route(v1alpha1.Route{Paths: []string{"/a?b"}})},
		{field: "spec.routes[0].paths[0]", says: "dot segment", spoil: route(v1alpha1.Route{Paths: []string{"/a/../b"}})},
		{field: "spec.routes[0].paths[0]", says: "%20", spoil: route(v1alpha1.Route{Paths: []string{"/a b"}})},
		{field: "spec.routes[0].headers[0].name", says: "name of a header", spoil: route(v1alpha1.Route{Headers: []v1alpha1.HeaderMatch{{Name: "a b"}}})},
		{field: "spec.routes[0].headers[0].value", says: "value of a header", spoil: route(v1alpha1.Route{Headers: []v1alpha1.HeaderMatch{{Name: "a", Value: "\n"}}})},
		{field: "spec.routes[0]", says: "neither", spoil: route(v1alpha1.Route{})},
		{field: "spec.replicas.min", says: "0 or more", spoil: func(s *spec) { s.Replicas.Min = -1 }},
		{field: "spec.replicas.max", says: "at least min, 2", spoil: func(s *spec) { s.Replicas = v1alpha1.Replicas{Min: 2, Max: 1} }},
		{field: "spec.replicas.max", says: "at least wake, 2", spoil: func(s *spec) { s.Replicas = v1alpha1.Replicas{Wake: 2, Max: 1} }},
		{field: "spec.replicas.wake", says: "at least min, 2", spoil: func(s *spec) { s.Replicas = v1alpha1.Replicas{Min: 2, Wake: 1} }},
		{field: "spec.idle.after", says: "290 years", spoil: func(s *spec) { s.Idle.After = "9999999999999h" }},
		{field: "spec.hold.timeout", says: "such as 90s", spoil: func(s *spec) { s.Hold.Timeout = "soon" }},
		{field: "spec.timeouts.total", says: "0s or more", spoil: func(s *spec) { s.Timeouts.Total = "-1s" }},
		{field: "spec.endpoint.protocol", says: "must be Auto", spoil: func(s *spec) { s.Endpoint.Protocol = "HTTP3" }},
		{field: "spec.endpoint.tls", says: "no effect", ca: authority{pem: certificate(t)}, spoil: func(s *spec) { s.Endpoint.Protocol = "H2C"; tls(s) }},
		{field: "spec.endpoint.tls.caConfigMap", says: "no such ConfigMap", ca: authority{problem: "there is no such ConfigMap"}, spoil: tls},
		{field: "spec.endpoint.tls.caConfigMap", says: "no certificate", ca: authority{pem: ""}, spoil: tls},
		{field: "spec.readiness.mode", says: "Endpoints", spoil: func(s *spec) { s.Readiness.Mode = "Never" }},
		{field: "spec.onDelete", says: "Wake or Leave", spoil: func(s *spec) { s.OnDelete = "Forget" }},
	} {
		es := shop()
		c.spoil(&es.Spec)
		d, mistakes := compile(es, c.ca)
		if d == nil || len(mistakes) != 1 || mistakes[0].Field != c.field || !strings.Contains(mistakes[0].Error(), c.says) {
			t.Errorf("%s: %v, want one mistake that says %q", c.field, mistakes, c.says)
		}
	}
	es := shop()
	es.Name = strings.Repeat("a", 54)
	if _, mistakes := compile(es, authority{}); len(mistakes) != 1 || mistakes[0].Field != "metadata.name" {
		t.Errorf("a name that is too long: %v", mistakes)
	}
}

// What was seen awake by an earlier process and has been zeroed since gets back what it had.
func TestHistoryIsWhatTheStatusKept(t *testing.T) {
	for _, c := range []struct {
		status v1alpha1.ElasticServiceStatus
		want   int32
	}{
		{v1alpha1.ElasticServiceStatus{}, 0},
		{v1alpha1.ElasticServiceStatus{Phase: "Asleep", Replicas: new(int32(0)), WakeReplicas: 3}, 3},
		{v1alpha1.ElasticServiceStatus{Phase: "Awake", Replicas: new(int32(5)), WakeReplicas: 3}, 5},
		{v1alpha1.ElasticServiceStatus{Phase: "Awake", WakeReplicas: 3}, 3},
		{v1alpha1.ElasticServiceStatus{WakeReplicas: -3}, 0},
	} {
		if got := history(&c.status).Wake; got != c.want {
			t.Errorf("%+v: %d, want %d", c.status, got, c.want)
		}
	}
}

// Whatever gets past the schema is compiled or refused, and what is accepted can be served.
func FuzzCompile(f *testing.F) {
	f.Add("shop", "http", "apps/v1", "shop.example.com", "/api", "X-Tenant", "blue", "5m", "Auto", int32(0), int32(1))
	f.Add("", "", "v1", "*.a", "/..", "", "\x00", "9999999999999h", "HTTPS", int32(-1), int32(1<<31-1))
	f.Fuzz(func(t *testing.T, name, port, apiVersion, host, path, header, value, duration, protocol string, low, high int32) {
		es := shop()
		es.Name = name
		es.Spec.Service.Port = new(intstr.Parse(port))
		es.Spec.ScaleTargetRef.APIVersion = apiVersion
		es.Spec.Routes = []v1alpha1.Route{{
			Hosts: []string{host}, Paths: []string{path}, Headers: []v1alpha1.HeaderMatch{{Name: header, Value: value}},
		}}
		es.Spec.Idle.After = v1alpha1.Duration(duration)
		es.Spec.Endpoint.Protocol = v1alpha1.Protocol(protocol)
		es.Spec.Replicas = v1alpha1.Replicas{Min: low, Max: high}
		d, mistakes := compile(es, authority{})
		if d == nil {
			t.Fatal("nothing is left to wake")
		}
		for _, m := range mistakes {
			if m.Field == "" || m.Detail == "" {
				t.Errorf("%q names no field or no remedy", m)
			}
		}
		s := &d.Service
		if s.Idle.After < 0 || s.Replicas.Min < 0 || s.Replicas.Max < 0 {
			t.Errorf("compiled to less than nothing: %+v", s)
		}
		if len(mistakes) > 0 {
			return
		}
		route := s.Routes[0]
		if len(route.Hosts) != 1 || route.Hosts[0] != strings.ToLower(route.Hosts[0]) || strings.HasSuffix(route.Hosts[0], ".") {
			t.Errorf("hosts %q of %q", route.Hosts, host)
		}
		if len(route.Paths) != 1 || !strings.HasPrefix(route.Paths[0], "/") || len(route.Paths[0]) > 1 && strings.HasSuffix(route.Paths[0], "/") {
			t.Errorf("paths %q of %q", route.Paths, path)
		}
		if s.Replicas.Max > 0 && s.Replicas.Max < s.Replicas.Min {
			t.Errorf("replicas %+v", s.Replicas)
		}
	})
}

func certificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
