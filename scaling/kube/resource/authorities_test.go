package resource

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

func TestACertificateThatCannotBeReadKeepsNobodyElse(t *testing.T) {
	w := newWorld(t)
	w.end()
	w.intercept(func(r *http.Request) *http.Response {
		if !strings.HasSuffix(r.URL.Path, "/configmaps/ca") {
			return nil
		}
		return failing(r, http.StatusInternalServerError, metav1.StatusReasonInternalError)
	})
	w.create("cart")
	w.create("shop", func(es *v1alpha1.ElasticService) {
		es.Spec.Endpoint = v1alpha1.Endpoint{Protocol: v1alpha1.ProtocolHTTPS, TLS: &v1alpha1.EndpointTLS{CAConfigMap: "ca"}}
	})
	w.start() // it waits until everything is adopted
	if w.definition("cart") == nil {
		t.Error("the other one is not in use")
	}
	w.awaitCondition("shop", "Accepted", "False InvalidSpec: spec.endpoint.tls.caConfigMap: Invalid value: \"ca\": the ConfigMap cannot be read: ")
	w.must(w.cluster.Client.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "ca"}, Data: map[string]string{"ca.crt": certificate(t)},
	}))
	w.intercept(func(*http.Request) *http.Response { return nil })
	w.awaitCondition("shop", "Accepted", "True Accepted")
}

func TestAMissingConfigMapIsAskedForLessAndLessOften(t *testing.T) {
	for name, status := range map[string]int{"missing": http.StatusNotFound, "refused": http.StatusForbidden, "broken": http.StatusInternalServerError} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				client, err := kubernetes.NewForConfig(&rest.Config{
					Host: "http://127.0.0.1", QPS: -1, Transport: tripper(func(r *http.Request) (*http.Response, error) {
						asked++
						return failing(r, status, map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 403: metav1.StatusReasonForbidden}[status]), nil
					}),
				})
				if err != nil {
					t.Fatal(err)
				}
				a := newAuthorities(client, func() {})
				a.get(configMap{"web", "ca"})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				a.run(ctx)
				if asked < 60 || asked > 66 {
					t.Errorf("asked %d times in an hour; it must be about once a minute in the end", asked)
				}
			})
		})
	}
}
