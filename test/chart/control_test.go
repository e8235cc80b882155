package chart

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The chart makes the Secret, and the activators fill it: no upgrade, rollback or repair may empty it again.
func TestAnUpgradeLeavesTheCertificateInItsSecret(t *testing.T) {
	t.Parallel()
	c, _, client := plane(t, space)
	in := func(args ...string) []string { return append(args, "--namespace", space) }
	content := func() string {
		secret, err := client.CoreV1().Secrets(space).Get(t.Context(), "dormouse-control", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(secret.Data["tls.crt"])
	}
	must(t, c.Kubeconfig(), in("install", "dormouse", chart(t))...)
	if got := content(); got != "" {
		t.Fatalf("the chart has made a certificate: %q", got)
	}
	// As the activators write it: the whole object.
	secret, err := client.CoreV1().Secrets(space).Get(t.Context(), "dormouse-control", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = map[string][]byte{"tls.crt": []byte("certificate")}
	if _, err := client.CoreV1().Secrets(space).Update(t.Context(), secret, metav1.UpdateOptions{FieldManager: "dormouse-activator"}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		in("upgrade", "dormouse", chart(t), "--set", "logLevel=debug"),
		in("upgrade", "dormouse", chart(t), "--set", "podLabels.a=b", "--force-replace=false"),
		in("rollback", "dormouse", "1"),
	} {
		must(t, c.Kubeconfig(), args...)
		if got := content(); got != "certificate" {
			t.Errorf("after helm %s the Secret has %q, want what was put there", args[0], got)
		}
	}
}

func TestACertificateOfOthersIsMountedAndItsSecretNotRead(t *testing.T) {
	for name, x := range map[string]struct {
		args   []string
		mount  string
		kinds  []string // of cert-manager's, besides
		secret bool     // the chart makes one
	}{
		"generated":    {nil, "", nil, true},
		"cert-manager": {[]string{"--set", "control.certificate=certManager"}, "dormouse-control-tls", []string{"Certificate", "Certificate", "Issuer", "Issuer"}, false},
		"an issuer": {
			[]string{"--set", "control.certificate=certManager,control.issuerRef.kind=ClusterIssuer,control.issuerRef.name=internal"},
			"dormouse-control-tls",
			[]string{"Certificate"},
			false,
		},
		"a Secret": {[]string{"--set", "control.certificate=mine"}, "mine", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			out := render(t, x.args...)
			var kinds []string
			for _, object := range parse(t, out) {
				switch kind := object.GetKind(); kind {
				case "Certificate", "Issuer":
					kinds = append(kinds, kind)
				case "Secret":
					if !x.secret || object.Object["data"] != nil || object.Object["stringData"] != nil {
						t.Errorf("a Secret is made: %v", object)
					}
				}
			}
			slices.Sort(kinds)
			if !slices.Equal(kinds, x.kinds) {
				t.Errorf("cert-manager is told %q, want %q", kinds, x.kinds)
			}
			if got := strings.Contains(out, "secretName: \""+x.mount+"\"\n"); x.mount != "" && !got {
				t.Errorf("the Secret %s is not mounted", x.mount)
			}
			if got := strings.Contains(out, "resources: [secrets]"); got != x.secret {
				t.Errorf("activators may read and write a Secret: %t, want %t", got, x.secret)
			}
			if got := strings.Contains(out, "- --control-cert="); got == x.secret {
				t.Errorf("activators read certificates from files: %t, want %t", got, !x.secret)
			}
		})
	}
}

// The port that commands and carries the activators' own talk is closed to other pods, where there is a policy.
func TestOnlyActivatorsMayConnectToTheControlPort(t *testing.T) {
	for args, from := range map[string]int{
		"networkPolicy.enabled=true": 1,
		"networkPolicy.enabled=true,control.allowFrom[0].podSelector.matchLabels.app=console":                              2,
		"networkPolicy.enabled=true,metrics.auth=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus": 2,
		"networkPolicy.enabled=true,metrics.auth=true":                                                                     0, // as with the metrics' own port: all may try
	} {
		policy := parse(t, render(t, "--show-only", "templates/networkpolicy.yaml", "--set", args))[0]
		spec, _ := policy.Object["spec"].(map[string]any)
		rules, _ := spec["ingress"].([]any)
		last, _ := rules[len(rules)-1].(map[string]any)
		peers, _ := last["from"].([]any)
		ports, _ := last["ports"].([]any)
		port, _ := ports[0].(map[string]any)
		if port["port"] != "control" || len(peers) != from {
			t.Errorf("with %s: from %v to %v, want from %d to the control port", args, peers, port, from)
		}
	}
}
