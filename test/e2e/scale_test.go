//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What Dormouse will do by itself, by hand: an application that sleeps is scaled up, answers, and is scaled down, and
// whoever calls it by its Service's address or name notices.
func TestAnApplicationIsScaledFromZeroAndBack(t *testing.T) {
	namespace := newNamespace(t)
	service := deployApp(t, namespace, "web", 0)
	deployApp(t, namespace, "caller", 1)
	caller := waitForPods(t, namespace, "caller", "the caller is ready", ready)[0]

	address := "http://" + net.JoinHostPort(service.Spec.ClusterIP, "80") + "/"
	urls := []string{
		address,
		"http://web/",
		"http://web." + namespace + "/",
		"http://web." + namespace + ".svc.cluster.local/",
	}

	var addressed, direct, byService []time.Duration
	for range 3 {
		for _, f := range getFromPod(t, caller, urls...) {
			if f.Error == "" {
				t.Errorf("while it sleeps, %s answered %d to a pod", f.URL, f.Status)
			}
		}

		began := time.Now()
		scale(t, namespace, "web", 1)
		if env.own != nil {
			// Both at once: what the endpoints' way adds to the pod's own is what Dormouse can save.
			answered := make(chan time.Time, 1)
			go func() { answered <- firstAnswer(t, address) }()
			pod := waitForPods(t, namespace, "web", "it has an address", hasAddress)[0]
			addressed = append(addressed, time.Since(began))
			direct = append(direct, firstAnswer(t, "http://"+net.JoinHostPort(pod.Status.PodIP, "8080")+"/").Sub(began))
			byService = append(byService, (<-answered).Sub(began))
		}
		waitForPods(t, namespace, "web", "it is ready", ready)

		t.Run("reached from a pod", func(t *testing.T) {
			for _, f := range waitForAnswers(t, caller, urls...) {
				if f.Status != http.StatusOK || f.Name != "web" {
					t.Errorf("%s: status %d from %q, error %q; want 200 from web", f.URL, f.Status, f.Name, f.Error)
				}
			}
		})
		t.Run("reached from the host", func(t *testing.T) { reachFromHost(t, namespace, service) })

		scale(t, namespace, "web", 0)
		waitForPods(t, namespace, "web", "it is gone", none)
	}
	if env.own != nil {
		printTimes("the PATCH of the scale to the pod's address in its status", addressed)
		printTimes("the PATCH of the scale to the first answer by the pod's address, from the host", direct)
		printTimes("the PATCH of the scale to the first answer by ClusterIP, from the host", byService)
	}
}

func printTimes(what string, took []time.Duration) {
	slices.Sort(took)
	fmt.Fprintf(os.Stdout, "e2e: from %s: %v (%v–%v)\n", what, took[len(took)/2].Round(time.Millisecond),
		took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// firstAnswer requests a URL, on a new connection each time, and returns when it was answered.
func firstAnswer(t *testing.T, url string) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 250 * time.Millisecond}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		status, _, err := get(ctx, client, url)
		if err == nil && status == http.StatusOK {
			return time.Now()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Errorf("%s did not answer within a minute of the scale being written: status %d, %v", url, status, err)
			return time.Now()
		}
	}
}

// waitForAnswers requests URLs from a pod until all answer: the name server learns of a Service's endpoints, and each
// node's rules change, a little after the pod is ready.
func waitForAnswers(t *testing.T, pod corev1.Pod, urls ...string) []fetched {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		all := getFromPod(t, pod, urls...)
		if !slices.ContainsFunc(all, func(f fetched) bool { return f.Error != "" }) || time.Now().After(deadline) {
			return all
		}
	}
}

// reachFromHost calls a Service from outside of the cluster. The host of a cluster of ours has routes to it, so it does
// what a pod would: it asks the cluster's name server, and connects to the Service's address. To another cluster the
// API server is the only way known, as a proxy.
func reachFromHost(t *testing.T, namespace string, service *corev1.Service) {
	t.Helper()
	if env.own == nil {
		body, err := env.client.CoreV1().Services(namespace).ProxyGet("http", service.Name, "80", "/", nil).DoRaw(t.Context())
		if err != nil {
			t.Errorf("by the API server's proxy: %v; it answered %q", err, body)
		}
		return
	}

	dns, err := env.client.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(dns.Spec.ClusterIP, "53"))
		},
	}}
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext},
		Timeout:   10 * time.Second,
	}
	for _, host := range []string{service.Spec.ClusterIP, service.Name + "." + namespace + ".svc.cluster.local."} {
		status, name, err := get(t.Context(), client, "http://"+host+"/")
		if err != nil || status != http.StatusOK || name != service.Name {
			t.Errorf("%s: status %d from %q, %v; want 200 from %s", host, status, name, err, service.Name)
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) (status int, name string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("X-App-Name"), nil
}

// A Service without endpoints refuses, at once: nobody waits for a pod that is not there.
func TestASleepingServiceRefuses(t *testing.T) {
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 0)
	deployApp(t, namespace, "caller", 1)
	caller := waitForPods(t, namespace, "caller", "the caller is ready", ready)[0]
	// Until kube-proxy has heard of the Service, nobody answers in any way.
	for deadline := time.Now().Add(time.Minute); ; {
		f := getFromPod(t, caller, "http://web/")[0]
		if strings.Contains(f.Error, "connection refused") {
			return
		}
		if f.Error == "" || time.Now().After(deadline) {
			t.Fatalf("status %d, error %q; want refused", f.Status, f.Error)
		}
	}
}
