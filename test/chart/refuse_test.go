package chart

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestValuesThatMeanNothingAreRefusedByName(t *testing.T) {
	for _, x := range []struct{ set, want string }{
		{"replica=2", "'replica'"},
		{"image.tags=v1", "'tags'"},
		{"replicas=two", "/replicas"},
		{"replicas=0", "/replicas"},
		{"image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{"namespaces=web", "/namespaces"},
		{"namespaces={Web}", "/namespaces/0"},
		{"namespaces={web,web}", "/namespaces"},
		{"hostClaims.shop=web/shop", "/hostClaims/shop"},
		{"extraScaleTargets[0].resources[0]=rollouts", "/extraScaleTargets/0"},
		{"extraScaleTargets[0].apiGroups[0]=a.io,extraScaleTargets[0].resources[0]=rollouts/scale", "/extraScaleTargets/0/resources/0"},
		{"service.type=ExternalName", "/service/type"},
		{"service.ports.http=70000", "/service/ports/http"},
		{"ports.from=80", "/ports/from"},
		{"ports=null", "'ports'"},
		{"ports.from=20000,ports.to=10000", "ports: from 20000 is above to 10000"},
		{"ports.from=9000,ports.to=9100", "9090 is one of the activator's own"},
		{"tls.secretName=a,service.ports.https=80", "http and https are both 80"},
		{"control.certificate=", "/control/certificate"},
		{"control.certificate=Mine", "/control/certificate"},
		{"control.issuerRef.name=internal", "control.issuerRef: it is cert-manager's"},
		{"control.unauthenticatedEvents={everybody}", "/control/unauthenticatedEvents/0"},
		{"metrics.auth=true,podMonitor.enabled=true", "metrics.auth: neither podMonitor"},
		{"metrics.auth=true,metrics.scrapeAnnotations=true", "metrics.auth: neither podMonitor"},
		{"drainTimeout=0s", "drainTimeout: 0s is not a duration to wait: use more than 0s, such as 5m"},
		{"drainTimeout=300", "/drainTimeout"},
		{"drainTimeout=5 minutes", "/drainTimeout"},
		{"shutdownDelay=-1s", "/shutdownDelay"},
		{"logLevel=loud", "/logLevel"},
		{"extraArgs={trusted-proxies}", "/extraArgs/0"},
		{"resources.limits.memory=1Gb", `resources.limits.memory: "1Gb"`},
		{"crds.instal=false", "'instal'"},
		{"podDisruptionBudget.maxUnavailable=0", "/podDisruptionBudget/maxUnavailable"},
		{"serviceMonitor.enabled=yes please", "/serviceMonitor/enabled"},
		{"serviceMonitor.enabled=true,podMonitor.enabled=true", "serviceMonitor.enabled and podMonitor.enabled"},
		{`podLabels.app\.kubernetes\.io/name=mine`, "podLabels: app.kubernetes.io/name is one of the labels that activators are known by"},
		{"topologySpread[0].maxSkew=1", "/topologySpread/0"},
	} {
		t.Run(x.set, func(t *testing.T) {
			t.Parallel()
			_, err := helm(t.Context(), t, os.DevNull, "template", "dormouse", chart(t), "--set", x.set)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want it to be refused with %q", err, x.want)
			}
		})
	}
}

// Null takes a value away, by which people undo a default.
func TestWhatMayBeLeftOutMayBeNull(t *testing.T) {
	render(t, "--set", strings.Join([]string{
		"namespaces=null", "hostClaims=null", "extraScaleTargets=null", "extraArgs=null", "extraEnv=null", "extraVolumes=null",
		"extraVolumeMounts=null", "resources.limits=null", "resources.requests=null", "podAnnotations=null", "podLabels=null",
		"nodeSelector=null", "tolerations=null", "affinity=null", "topologySpread=null", "priorityClassName=null",
		"fullnameOverride=null", "image.tag=null", "image.pullSecrets=null", "service.annotations=null", "control.issuerRef=null", "control.allowFrom=null",
		"control.unauthenticatedEvents=null", "tls.secretName=null",
	}, ","))
}

func TestTheSchemaKnowsEveryValueAndNoOther(t *testing.T) {
	files := read(t, chart(t))
	var values map[string]any
	if err := yaml.Unmarshal([]byte(files["values.yaml"]), &values); err != nil {
		t.Fatal(err)
	}
	var all schema
	if err := json.Unmarshal([]byte(files["values.schema.json"]), &all); err != nil {
		t.Fatal(err)
	}
	known := all.paths(all.Definitions, "")
	known = slices.DeleteFunc(known, func(path string) bool { return path == "global" })
	if got := slices.Sorted(maps.Keys(leaves(values))); !slices.Equal(got, known) {
		t.Errorf("values.yaml has\n%q\nand the schema\n%q", got, known)
	}
}

// schema is as much of a JSON schema as names properties.
type schema struct {
	Ref         string            `json:"$ref"`
	Properties  map[string]schema `json:"properties"`
	Definitions map[string]schema `json:"definitions"`
}

// paths are the properties that a schema knows, down to where it lets anything be.
func (s schema) paths(definitions map[string]schema, path string) (all []string) {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		return definitions[name].paths(definitions, path)
	}
	if s.Properties == nil {
		return []string{path}
	}
	for name, property := range s.Properties {
		all = append(all, property.paths(definitions, strings.TrimPrefix(path+"."+name, "."))...)
	}
	slices.Sort(all)
	return all
}

// leaves are the chart's values by their paths. A map that has defaults for nothing certain is one value.
func leaves(values map[string]any) map[string]any {
	all := map[string]any{}
	for name, value := range values {
		inner, ok := value.(map[string]any)
		if !ok || len(inner) == 0 || name == "requests" || name == "limits" {
			all[name] = value
			continue
		}
		for path, value := range leaves(inner) {
			all[name+"."+path] = value
		}
	}
	return all
}
