//go:build e2e

package e2e

import (
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// An in-cluster client changes one name, web to web-activator, and needs no Host.
func TestAnotherPodReachesAServiceByItsActivatorsName(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	deployApp(t, namespace, "caller", 1)
	elastic(t, namespace, "web", nil)
	caller := waitForPods(t, namespace, "caller", "the caller is ready", ready)[0]
	awaitCondition(t, namespace, "web", v1alpha1.ConditionActivatorService, metav1.ConditionTrue)
	urls := []string{
		"http://web-activator/", // cold
		"http://web-activator." + namespace + "/",
		"http://web-activator." + namespace + ".svc.cluster.local/",
		"http://" + env.dormouse.Service + "." + env.dormouse.Namespace + "/", // which is no service's name
	}
	// The name server and the node's rules learn of the new Service in their own time.
	for i, f := range waitForAnswers(t, caller, urls...) {
		if last := i == len(urls)-1; !last && (f.Status != http.StatusOK || f.Name != "web") || last && f.Status != http.StatusNotFound {
			t.Errorf("%s: status %d from %q, error %q", f.URL, f.Status, f.Name, f.Error)
		}
	}

	awaitAsleep(t, namespace, "web")
	if f := getFromPod(t, caller, urls[0])[0]; f.Status != http.StatusOK || f.Name != "web" {
		t.Errorf("from zero again: status %d from %q, error %q", f.Status, f.Name, f.Error)
	}
}

// Whoever routes by destination need not know of hosts: the service's own port takes any.
func TestTheActivatorsServiceTakesAnyHost(t *testing.T) {
	t.Parallel()
	if env.own == nil {
		t.Skip("from outside of the cluster there is no way to the Service")
	}
	namespace := asleep(t)
	awaitCondition(t, namespace, "web", v1alpha1.ConditionActivatorService, metav1.ConditionTrue)
	c := clientOf(t, clusterAddress(t, namespace, "web-activator", "http"))
	for _, host := range []string{"shop.example.com", "web." + namespace, "other." + namespace} {
		r := ask(t.Context(), c, "http://"+host+"/headers")
		wantOK(t, "by the host "+host, r)
	}
}

func TestDormousesServiceRoutesByHostAndPath(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for _, name := range []string{"shop", "api"} {
		deployApp(t, namespace, name, 0)
	}
	host := namespace + ".example.com"
	elastic(t, namespace, "shop", func(e *v1alpha1.ElasticService) {
		e.Spec.Routes = []v1alpha1.Route{{Hosts: []string{host, "*." + host}}}
	})
	elastic(t, namespace, "api", func(e *v1alpha1.ElasticService) {
		e.Spec.Routes = []v1alpha1.Route{{Hosts: []string{host}, Paths: []string{"/api"}, Headers: []v1alpha1.HeaderMatch{}}}
	})
	c := toDormouse(t)
	for url, want := range map[string]string{
		host + "/": "shop", host + "/apix": "shop", host + "/api": "api", host + "/api/x": "api", "a.b." + host + "/api": "shop",
	} {
		r := ask(t.Context(), c, "http://"+url)
		wantOK(t, url, r)
		if got := r.header.Get("X-App-Name"); got != want {
			t.Errorf("%s is answered by %q, want %s", url, got, want)
		}
	}
	wantProblem(t, "a host that nobody has", ask(t.Context(), c, "http://nobody."+namespace+".example.org/"), 404, "")
}

func TestAForwardedPortLeadsToEveryService(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	c := clientOf(t, forwardPort(t, readyDormouse(t), 8080))
	wantOK(t, "a cold request by a forwarded port", ask(t.Context(), c, urlOf(namespace, "web", "/")))
	wantOK(t, "a warm one", ask(t.Context(), c, urlOf(namespace, "web", "/")))
}
