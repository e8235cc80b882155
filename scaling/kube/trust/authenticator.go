package trust

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// ErrUnauthenticated is the error of a caller who brings no token, or none that is good for what it is used for.
var ErrUnauthenticated error = &refusal{http.StatusUnauthorized, "not authenticated"}

// refusal is an error that knows which status tells it to a client.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

// StatusCode returns 401 or 403.
func (e *refusal) StatusCode() int { return e.status }

// maxToken bounds a token, in bytes. Those of ServiceAccounts have one or two thousand.
const maxToken = 16 << 10

// User is who a token belongs to.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string // such as the pod that a ServiceAccount's token is bound to
}

// Authenticator finds out whose a token is. It is safe for concurrent use.
type Authenticator struct {
	client  authenticationclient.TokenReviewInterface
	reviews *reviews[User]
}

// NewAuthenticator returns an Authenticator that asks client. What one is asked does not make another wait.
func NewAuthenticator(client authenticationclient.TokenReviewInterface) *Authenticator {
	return &Authenticator{client: client, reviews: newReviews[User]()}
}

// Who returns whose token it is. audience is whom the token must be meant for; empty: the API server. It returns
// [ErrUnauthenticated] for a token that is not good, and any other error where that could not be found out.
func (a *Authenticator) Who(ctx context.Context, token, audience string) (User, error) {
	if token == "" || len(token) > maxToken {
		return User{}, ErrUnauthenticated
	}
	q, err := questionOf([]string{token, audience})
	if err != nil {
		return User{}, err
	}
	user, good, err := a.reviews.ask(ctx, q, func(ctx context.Context) (User, bool, error) { return a.review(ctx, token, audience) })
	switch {
	case err != nil:
		return User{}, err
	case !good:
		return User{}, ErrUnauthenticated
	}
	return user, nil
}

func (a *Authenticator) review(ctx context.Context, token, audience string) (User, bool, error) {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if audience != "" {
		review.Spec.Audiences = []string{audience}
	}
	answer, err := a.client.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return User{}, false, fmt.Errorf("review a token: %w", err)
	}
	status := &answer.Status
	// An API server that cannot tell audiences apart leaves them out.
	if !status.Authenticated || audience != "" && !slices.Contains(status.Audiences, audience) {
		return User{}, false, nil
	}
	user := User{Name: status.User.Username, UID: status.User.UID, Groups: status.User.Groups, Extra: make(map[string][]string, len(status.User.Extra))}
	for key, values := range status.User.Extra {
		user.Extra[key] = values
	}
	return user, true, nil
}

// Bearer returns the token that a request brings (RFC 6750 section 2.1), or "".
func Bearer(r *http.Request) string {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
