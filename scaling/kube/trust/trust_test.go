package trust_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/kube/trust"
)

func aTokenSaysWhoseItIs(t *testing.T, w *world) {
	w.account(t, "console")
	people := trust.NewAuthenticator(w.AuthenticationV1().TokenReviews())
	general, special := w.token(t, "console", nil), w.token(t, "console", nil, trust.PeersAudience)
	forged := general[:len(general)-8] + strings.Repeat("A", 8) // of the signature
	for what, x := range map[string]struct {
		token, audience string
		good            bool
	}{
		"a token for the API server":            {general, "", true},
		"one for peers, used as one":            {special, trust.PeersAudience, true},
		"one for peers, used at the API":        {special, "", false},
		"one for the API server, used by peers": {general, trust.PeersAudience, false},
		"a forged one":                          {forged, "", false},
		"no token":                              {"", "", false},
		"a book":                                {strings.Repeat("a", 17<<10), "", false},
	} {
		for range 2 { // found out, and remembered
			user, err := people.Who(t.Context(), x.token, x.audience)
			switch {
			case x.good && (err != nil || user.Name != "system:serviceaccount:"+w.namespace+":console" || !slices.Contains(user.Groups, "system:serviceaccounts")):
				t.Errorf("%s: %+v, %v, want the console's account", what, user, err)
			case !x.good && (!errors.Is(err, trust.ErrUnauthenticated) || user.Name != ""):
				t.Errorf("%s: %+v, %v, want that nobody is known", what, user, err)
			}
		}
	}
}

// The API server gives no token that is shorter than 10 minutes, so it ends here by what else ends one: its account goes.
func aTokenEnds(t *testing.T, w *world) {
	w.account(t, "console")
	people := trust.NewAuthenticator(w.AuthenticationV1().TokenReviews())
	token := w.token(t, "console", nil)
	if _, err := people.Who(t.Context(), token, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.CoreV1().ServiceAccounts(w.namespace).Delete(t.Context(), "console", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the token is good no more", func() bool {
		_, err := people.Who(t.Context(), token, "")
		return errors.Is(err, trust.ErrUnauthenticated)
	})
	if passed := time.Since(began); passed > 15*time.Second {
		t.Errorf("it was good for %v more, want 10 s and a little", passed)
	}
}

func aRightHoldsUntilItIsTakenAway(t *testing.T, w *world) {
	who := trust.User{Name: "jane", Groups: []string{"system:authenticated"}}
	wake := trust.Access{Verb: "create", Subresource: "wake", Service: scaling.Key{Namespace: w.namespace, Name: "shop"}}
	people := trust.NewAuthorizer(w.AuthorizationV1().SubjectAccessReviews())
	may := func(want error) func() bool {
		return func() bool { return errors.Is(people.May(t.Context(), who, wake), want) }
	}
	if !may(trust.ErrForbidden)() {
		t.Fatal("jane has a right that nobody gave her")
	}
	w.role(t, "waker", rbacv1.PolicyRule{APIGroups: []string{"dormouse.dev"}, Resources: []string{"elasticservices/wake"}, Verbs: []string{"create"}})
	eventually(t, "jane may wake shop", may(nil))
	sleep := wake
	sleep.Subresource = "sleep"
	if err := people.May(t.Context(), who, sleep); !errors.Is(err, trust.ErrForbidden) {
		t.Errorf("who may wake may put to sleep: %v", err)
	}
	if err := people.May(t.Context(), trust.User{Name: "joe"}, wake); !errors.Is(err, trust.ErrForbidden) {
		t.Errorf("what jane may, joe may: %v", err)
	}
	if err := w.RbacV1().RoleBindings(w.namespace).Delete(t.Context(), "waker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "jane may no more", may(trust.ErrForbidden))
}

func aRightToOneServiceIsNoneToAnother(t *testing.T, w *world) {
	people := trust.NewAuthorizer(w.AuthorizationV1().SubjectAccessReviews())
	w.role(t, "getter", rbacv1.PolicyRule{APIGroups: []string{"dormouse.dev"}, Resources: []string{"elasticservices"}, ResourceNames: []string{"shop"}, Verbs: []string{"get"}})
	jane := trust.User{Name: "jane"}
	get := func(namespace, name string) error {
		return people.May(t.Context(), jane, trust.Access{Verb: "get", Service: scaling.Key{Namespace: namespace, Name: name}})
	}
	eventually(t, "jane may see shop", func() bool { return get(w.namespace, "shop") == nil })
	for _, key := range []scaling.Key{{Namespace: w.namespace, Name: "bank"}, {Namespace: "default", Name: "shop"}, {Namespace: w.namespace}, {}} {
		if err := get(key.Namespace, key.Name); !errors.Is(err, trust.ErrForbidden) {
			t.Errorf("she may see %v too: %v", key, err)
		}
	}
}

func aPathNeedsARight(t *testing.T, w *world) {
	people := trust.NewAuthorizer(w.AuthorizationV1().SubjectAccessReviews())
	metrics := trust.Access{Verb: "get", Path: "/metrics"}
	if err := people.May(t.Context(), trust.User{Name: "jane", Groups: []string{"system:authenticated"}}, metrics); !errors.Is(err, trust.ErrForbidden) {
		t.Errorf("anybody may get the metrics: %v", err)
	}
	if err := people.May(t.Context(), trust.User{Name: "admin", Groups: []string{"system:masters"}}, metrics); err != nil {
		t.Errorf("an administrator may not get the metrics: %v", err)
	}
}

func aPeerIsAPod(t *testing.T, w *world) {
	w.account(t, "dormouse")
	w.account(t, "shop")
	peers := trust.NewPeers(trust.NewAuthenticator(w.AuthenticationV1().TokenReviews()), w.namespace, "dormouse")
	one, two, shop := w.pod(t, "one", "dormouse"), w.pod(t, "two", "dormouse"), w.pod(t, "shop", "shop")
	good := w.token(t, "dormouse", one, trust.PeersAudience)
	payload := strings.Split(good, ".")
	for what, x := range map[string]struct {
		token string
		want  types.UID
		err   error
	}{
		"an activator": {good, one.UID, nil},
		"another":      {w.token(t, "dormouse", two, trust.PeersAudience), two.UID, nil},
		"an activator's token for the API server": {w.token(t, "dormouse", one), "", trust.ErrUnauthenticated},
		"a token that is bound to no pod":         {w.token(t, "dormouse", nil, trust.PeersAudience), "", trust.ErrForbidden},
		"a pod of another account":                {w.token(t, "shop", shop, trust.PeersAudience), "", trust.ErrForbidden},
		"another's claims, without a signature":   {payload[0] + "." + payload[1] + ".", "", trust.ErrUnauthenticated},
		"nobody":                                  {"", "", trust.ErrUnauthenticated},
	} {
		uid, err := peers.Peer(carrying(x.token))
		if uid != string(x.want) || !errors.Is(err, x.err) {
			t.Errorf("%s: is pod %q, %v, want %q, %v", what, uid, err, x.want, x.err)
		}
	}
	elsewhere := trust.NewPeers(trust.NewAuthenticator(w.AuthenticationV1().TokenReviews()), "elsewhere", "dormouse")
	if _, err := elsewhere.Peer(carrying(good)); !errors.Is(err, trust.ErrForbidden) {
		t.Errorf("an account of the same name in another namespace is a peer: %v", err)
	}
}

func aPeerIsKnownWhileItsPodIsThere(t *testing.T, w *world) {
	w.account(t, "dormouse")
	peers := trust.NewPeers(trust.NewAuthenticator(w.AuthenticationV1().TokenReviews()), w.namespace, "dormouse")
	one := w.pod(t, "one", "dormouse")
	token := w.token(t, "dormouse", one, trust.PeersAudience)
	if _, err := peers.Peer(carrying(token)); err != nil {
		t.Fatal(err)
	}
	if err := w.CoreV1().Pods(w.namespace).Delete(t.Context(), "one", *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its token is good no more", func() bool {
		_, err := peers.Peer(carrying(token))
		return errors.Is(err, trust.ErrUnauthenticated)
	})
}

// It is an error of ours, and no answer: neither yes nor no.
func whoMayNotReviewIsToldNothing(t *testing.T, w *world) {
	w.account(t, "dormouse")
	powerless := w.as(t, w.token(t, "dormouse", nil))
	_, err := trust.NewAuthenticator(powerless.AuthenticationV1().TokenReviews()).Who(t.Context(), w.token(t, "dormouse", nil), "")
	if err == nil || errors.Is(err, trust.ErrUnauthenticated) {
		t.Errorf("whose token: %v, want that it is not known", err)
	}
	err = trust.NewAuthorizer(powerless.AuthorizationV1().SubjectAccessReviews()).May(t.Context(), trust.User{Name: "jane"}, trust.Access{Verb: "list"})
	if err == nil || errors.Is(err, trust.ErrForbidden) {
		t.Errorf("whose right: %v, want that it is not known", err)
	}
}

func carrying(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// role lets jane do something in the namespace.
func (w *world) role(t *testing.T, name string, rule rbacv1.PolicyRule) {
	t.Helper()
	_, err := w.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err == nil {
		_, err = w.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "jane"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
