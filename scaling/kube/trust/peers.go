package trust

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// PeersAudience is whom the tokens are meant for by which activators know each other. The API server itself does not
// take them, so whoever gets hold of one can do nothing with it but what an activator may ask of another.
const PeersAudience = "peers.dormouse.dev"

// podUID is where a TokenReview says which pod a token is bound to. The API server refuses the token once that is gone.
const podUID = "authentication.kubernetes.io/pod-uid"

// Peers recognises other activators: pods that run as a certain ServiceAccount. It is safe for concurrent use.
type Peers struct {
	authenticator *Authenticator
	account       string // as a TokenReview calls it
}

// NewPeers returns Peers whose pods run as a ServiceAccount of namespace. The authenticator should be theirs alone, so
// that they wait for no stranger's review.
func NewPeers(authenticator *Authenticator, namespace, serviceAccount string) *Peers {
	return &Peers{authenticator: authenticator, account: "system:serviceaccount:" + namespace + ":" + serviceAccount}
}

// Peer returns the UID of the pod that makes a request: its token is meant for peers, and bound to that pod by the
// kubelet that runs it. Otherwise the error is [ErrUnauthenticated] (no good token), [ErrForbidden] (not a pod of the
// ServiceAccount), or another where it could not be found out. The two have a method StatusCode that returns 401 and 403.
func (p *Peers) Peer(r *http.Request) (uid string, err error) {
	token := Bearer(r)
	// What does not even claim to be one is not worth a question to the API server.
	if claims := claimed(token); !slices.Contains(claims.Audiences, PeersAudience) {
		return "", ErrUnauthenticated
	} else if claims.Subject != p.account {
		return "", ErrForbidden
	}
	user, err := p.authenticator.Who(r.Context(), token, PeersAudience)
	if err != nil {
		return "", err
	}
	pods := user.Extra[podUID]
	if user.Name != p.account || len(pods) != 1 || pods[0] == "" {
		return "", ErrForbidden
	}
	return pods[0], nil
}

// claims are what a ServiceAccount's token says of itself.
type claims struct {
	Audiences []string `json:"aud"`
	Subject   string   `json:"sub"`
}

// claimed reads the claims of a JSON Web Token (RFC 7519), and believes them: they are only to be refused by.
func claimed(token string) (c claims) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return c
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claims{}
	}
	return c
}
