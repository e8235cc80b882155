// Package trust finds out who a caller is and what he may do, by asking the API server: TokenReview and
// SubjectAccessReview (Kubernetes API reference, authentication.k8s.io/v1 and authorization.k8s.io/v1).
//
// An [Authenticator] and an [Authorizer] remember an answer, yes or no, for ten seconds; for so long a token that has
// expired and a right that was taken away go on. What the API server did not answer is nobody's right: it is neither
// remembered nor taken for a yes. A question that many have at the same time is asked once. [Peers] tells which pod of
// the activator a caller is.
//
// Package certs beside it has the certificates by which callers know whom they give their tokens.
package trust
