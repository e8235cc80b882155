package chart

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/dormouse-dev/dormouse/test/cluster"
)

const controlName = "dormouse-control." + space + ".svc" // of the certificate

// knowsItsCallers calls the control port by TLS, with the certificate that the activator has put into the chart's Secret,
// as accounts whose tokens a real API server gave out.
func (p *process) knowsItsCallers(t *testing.T, c *cluster.Cluster, client *kubernetes.Clientset) {
	t.Helper()
	roots := x509.NewCertPool()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		secret, err := client.CoreV1().Secrets(space).Get(ctx, "dormouse-control", metav1.GetOptions{})
		return err == nil && roots.AppendCertsFromPEM(secret.Data["ca.crt"]), err
	})
	if err != nil {
		t.Fatalf("the Secret is not filled: %v", err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", p.control)
		},
	}
	defer transport.CloseIdleConnections()
	call := func(method, path, token string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+controlName+":8012"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Log(err)
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	token := func(account string, audiences ...string) string {
		answer, err := client.CoreV1().ServiceAccounts("web").CreateToken(t.Context(), account,
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status.Token
	}
	kubectl(t, c, "", "create", "serviceaccount", "operator", "--namespace=web")
	kubectl(t, c, "", "create", "serviceaccount", "stranger", "--namespace=web")
	kubectl(t, c, "", "create", "role", "operator", "--namespace=web", "--verb=get,create", "--resource=elasticservices.dormouse.dev,elasticservices.dormouse.dev/pin")
	kubectl(t, c, "", "create", "rolebinding", "operator", "--namespace=web", "--role=operator", "--serviceaccount=web:operator")

	const shop = "/api/v1/services/web/shop"
	for _, x := range []struct {
		what, method, path, token string
		want                      int
	}{
		{"nobody", http.MethodGet, shop, "", http.StatusUnauthorized},
		{"a made-up token", http.MethodGet, shop, "made-up", http.StatusUnauthorized},
		{"a token for something else", http.MethodGet, shop, token("operator", "vault"), http.StatusUnauthorized},
		{"a peer's token", http.MethodGet, shop, token("operator", "peers.dormouse.dev"), http.StatusUnauthorized},
		{"who has no right", http.MethodGet, shop, token("stranger"), http.StatusForbidden},
		{"who has the right", http.MethodGet, shop, token("operator"), http.StatusOK},
		{"who has another right", http.MethodPost, shop + "/sleep", token("operator"), http.StatusForbidden},
		{"who has a right to one namespace", http.MethodGet, "/api/v1/services/default/shop", token("operator"), http.StatusForbidden},
		{"who has a right to one namespace, to act in another", http.MethodPost, "/api/v1/services/default/shop/pin?for=1h", token("operator"), http.StatusForbidden},
		{"who has a right to one namespace, behind a way out of it", http.MethodPost, "/api/v1/services/web%2F..%2Fdefault/shop/pin?for=1h", token("operator"), http.StatusForbidden},
		{"who has a right to one namespace, for all", http.MethodGet, "/api/v1/services", token("operator"), http.StatusForbidden},
	} {
		var got int
		err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
			got = call(x.method, x.path, x.token) // the certificate, the role and the resource take a moment each
			return got == x.want, nil
		})
		if err != nil {
			t.Errorf("%s is told %d, want %d", x.what, got, x.want)
		}
	}
}
