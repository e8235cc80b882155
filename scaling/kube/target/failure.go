package target

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/dormouse-dev/dormouse/scaling"
)

// kindFailure returns what an error means for all objects of a kind, or nil where it may pass.
func kindFailure(err error, k *kind) *scaling.Failure {
	if failure, ok := errors.AsType[*scaling.Failure](err); ok {
		return failure
	}
	switch {
	case apierrors.IsNotFound(err): // its definition was taken away
		return noKind(k.scope.apiVersion, k.scope.kind)
	case apierrors.IsForbidden(err) && k.served != nil:
		return forbidden(err, k.served, "watch")
	}
	return nil
}

// scaleFailure returns what an error of reading or writing a scale means, or nil where it may pass. The object is there
// unless the API server does not find it.
func scaleFailure(err error, s *served) *scaling.Failure {
	switch {
	case apierrors.IsForbidden(err):
		return forbidden(err, s, "scale")
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return &scaling.Failure{Reason: scaling.ReasonInvalid, Message: err.Error()}
	}
	return nil
}

func noKind(apiVersion, kind string) *scaling.Failure {
	return &scaling.Failure{
		Reason:  scaling.ReasonTargetMissing,
		Message: fmt.Sprintf("the cluster has no kind %s of %s: install its definition, or correct spec.scaleTargetRef", kind, apiVersion),
	}
}

func noTarget(ref Ref) *scaling.Failure {
	return &scaling.Failure{
		Reason:  scaling.ReasonTargetMissing,
		Message: fmt.Sprintf("there is no %s: create it, or correct spec.scaleTargetRef", ref),
	}
}

func notScalable(ref Ref) *scaling.Failure {
	return &scaling.Failure{
		Reason: scaling.ReasonNotScalable,
		Message: fmt.Sprintf("%s of %s has no scale subresource: its definition has to declare one (spec.versions[].subresources.scale)",
			ref.Kind, ref.APIVersion),
	}
}

// undiscoverable says which rule would be right to learn what the API server has.
func undiscoverable(err error, path string) *scaling.Failure {
	message := fmt.Sprintf("%v; the activator's role needs get on the nonResourceURL %s (the ClusterRole system:discovery)", err, path)
	return &scaling.Failure{Reason: scaling.ReasonForbidden, Message: message}
}

func isForbidden(failure *scaling.Failure) bool {
	return failure != nil && failure.Reason == scaling.ReasonForbidden
}

// forbidden says which rule would be right. The rules are those to watch the objects, or those to scale them.
func forbidden(err error, s *served, what string) *scaling.Failure {
	resource, verbs := s.resource.Resource, "list and watch"
	if what == "scale" {
		resource, verbs = resource+"/scale", "get and update"
	}
	message := fmt.Sprintf("%v; the activator's role needs %s on %s of apiGroup %q (the chart's extraScaleTargets)",
		err, verbs, resource, s.resource.Group)
	return &scaling.Failure{Reason: scaling.ReasonForbidden, Message: message}
}
