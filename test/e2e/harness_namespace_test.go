//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// namespacePrefix begins the names of the tests' namespaces.
const namespacePrefix = "e2e-"

// goneWithin is how long namespaces may need after the last test: their pods are told to end, and some take their time.
const goneWithin = time.Minute

// newNamespace makes a namespace for a test, which goes with it. That it has gone is looked at when all tests have ended
// (namespacesGone): nobody waits for it before.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace, err := env.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: namespacePrefix}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			describe(ctx, t, namespace.Name)
		}
		if err := env.client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete the namespace: %v", err)
		}
	})
	return namespace.Name
}

// namespacesGone waits until no namespace of a test is left, and fails with what each that is left says of itself:
// Dormouse's finalizers must not keep one.
func namespacesGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goneWithin)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	err := errors.New("nothing was heard of the namespaces of tests")
	for {
		left, listErr := namespacesLeft(ctx)
		switch {
		case listErr == nil && len(left) == 0:
			return nil
		case listErr == nil:
			err = fmt.Errorf("%d namespaces of tests are left after %v: %s", len(left), goneWithin, strings.Join(left, "; "))
		case ctx.Err() == nil:
			err = listErr
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// namespacesLeft describes each of the tests' namespaces that is there.
func namespacesLeft(ctx context.Context) (left []string, err error) {
	list, err := env.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the namespaces: %w", err)
	}
	for i := range list.Items {
		n := &list.Items[i]
		if !strings.HasPrefix(n.Name, namespacePrefix) {
			continue
		}
		said := n.Name + " is " + string(n.Status.Phase)
		for _, c := range n.Status.Conditions {
			if c.Status == corev1.ConditionTrue {
				said += ", " + c.Message
			}
		}
		left = append(left, said)
	}
	return left, nil
}
