package cluster

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// readableTimeout bounds how long it is asked which namespaces may be read.
const readableTimeout = 5 * time.Second

// Readable returns those of the namespaces whose ElasticServices we may read. The right to read a namespace goes with it
// when it is deleted, and a cache that has to have all of them would never have any. Those that are left out are
// logged; they are looked at again at the next start. Where none may be read, or it cannot be found out, it returns all.
func Readable(ctx context.Context, config *rest.Config, namespaces []string, logger *zap.Logger) ([]string, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readableTimeout)
	defer cancel()
	var readable, not []string
	for _, namespace := range namespaces {
		resources := client.Resource(v1alpha1.GroupVersion().WithResource("elasticservices")).Namespace(namespace)
		if _, err := resources.List(ctx, metav1.ListOptions{Limit: 1}); apierrors.IsForbidden(err) {
			not = append(not, namespace)
			continue
		}
		readable = append(readable, namespace)
	}
	if len(readable) == 0 || len(not) == 0 {
		return namespaces, nil
	}
	logger.Error("some namespaces may not be read and are left out until the next start; were they deleted?",
		zap.Strings("namespaces", not))
	return readable, nil
}
