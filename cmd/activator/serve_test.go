package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestMistakesInTheFlagsOfServeAreNamed(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"no range":              {[]string{"--ports=10000"}, nil, `--ports: "10000" is not a range of ports`},
		"a range upside down":   {[]string{"--ports=2000-1999"}, nil, `--ports: "2000-1999" is not a range`},
		"privileged ports":      {[]string{"--ports=80-90"}, nil, "from 1024 to 65535"},
		"no namespace":          {[]string{"--namespaces=Web"}, nil, `--namespaces: "Web" is no name of a namespace`},
		"a claim for nobody":    {[]string{"--host-claims=shop.test="}, nil, `--host-claims: "", for "shop.test", is no name of a namespace`},
		"no selector":           {[]string{"--peers-selector=!"}, nil, `--peers-selector: "!" is no label selector`},
		"https without a key":   {[]string{"--https=:8443"}, nil, "--https: :8443 needs a certificate; set --tls-cert and --tls-key"},
		"half a certificate":    {[]string{"--tls-cert=tls.crt"}, nil, "--tls-cert and --tls-key belong together"},
		"a pod without peers":   {nil, map[string]string{"POD_NAME": "a", "POD_NAMESPACE": "b"}, "--peers-selector: in a pod, name the labels"},
		"half a pod":            {nil, map[string]string{"POD_NAME": "a"}, "$POD_NAME, $POD_NAMESPACE and $POD_UID belong together"},
		"those of all":          {[]string{"--max-held-requests=-1"}, nil, "--max-held-requests: -1 is negative"},
		"several at once":       {[]string{"--ports=x", "--namespaces=Web"}, nil, "--namespaces"},
		"an unknown kubeconfig": {[]string{"--kubeconfig=/nonexistent"}, nil, "--kubeconfig: "},
		"an open control port":  {[]string{"--kubeconfig=testdata/kubeconfig", "--http=127.0.0.1:0", "--metrics=127.0.0.1:0", "--control=0.0.0.0:0"}, nil, "--control: "},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"POD_NAME", "POD_NAMESPACE", "POD_UID"} {
				t.Setenv(variable, test.env[variable])
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var stdout, stderr strings.Builder
			if err := run(ctx, append([]string{"serve"}, test.args...), &stdout, &stderr); err == nil {
				t.Fatal("got no error")
			}
			if !strings.Contains(stderr.String(), test.want) {
				t.Errorf("got %q, want it to say %q", stderr.String(), test.want)
			}
		})
	}
}
