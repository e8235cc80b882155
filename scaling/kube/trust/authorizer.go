package trust

import (
	"context"
	"fmt"
	"net/http"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// ErrForbidden is the error of a caller who may not do what he asks for.
var ErrForbidden error = &refusal{http.StatusForbidden, "forbidden"}

// Access is something that a user may or may not do: with ElasticServices, or, where Path is set, with that path.
type Access struct {
	Verb        string      // of the Kubernetes API, such as get or create
	Subresource string      // of elasticservices, such as wake; empty: the resource itself
	Service     scaling.Key // an empty name stands for all of a namespace, and both empty for all there are

	Path string // such as /metrics; empty: it is about ElasticServices
}

// Authorizer finds out who may do what. It is safe for concurrent use.
type Authorizer struct {
	client  authorizationclient.SubjectAccessReviewInterface
	reviews *reviews[struct{}]
}

// NewAuthorizer returns an Authorizer that asks client.
func NewAuthorizer(client authorizationclient.SubjectAccessReviewInterface) *Authorizer {
	return &Authorizer{client: client, reviews: newReviews[struct{}]()}
}

// May returns nil if user may do what access says, [ErrForbidden] if not, and any other error where that could not be
// found out.
func (a *Authorizer) May(ctx context.Context, user User, access Access) error {
	q, err := questionOf(struct {
		User   User
		Access Access
	}{user, access})
	if err != nil {
		return err
	}
	_, allowed, err := a.reviews.ask(ctx, q, func(ctx context.Context) (struct{}, bool, error) {
		answer, err := a.client.Create(ctx, reviewOf(user, access), metav1.CreateOptions{})
		if err != nil {
			return struct{}{}, false, fmt.Errorf("review access: %w", err)
		}
		return struct{}{}, answer.Status.Allowed, nil
	})
	switch {
	case err != nil:
		return err
	case !allowed:
		return ErrForbidden
	}
	return nil
}

func reviewOf(user User, access Access) *authorizationv1.SubjectAccessReview {
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, values := range user.Extra {
		extra[key] = values
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Name, UID: user.UID, Groups: user.Groups, Extra: extra,
	}}
	if access.Path != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: access.Path, Verb: access.Verb}
		return review
	}
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Group: v1alpha1.GroupVersion().Group, Resource: "elasticservices", Subresource: access.Subresource,
		Verb: access.Verb, Namespace: access.Service.Namespace, Name: access.Service.Name,
	}
	return review
}
