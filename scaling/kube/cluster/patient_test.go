package cluster

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
	"github.com/dormouse-dev/dormouse/test/cluster/keeper"
)

func TestTheCacheIsUpToDateSoonAfterAnOutage(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Connect(Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Cache.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await(t, c, "kubernetes", 20*time.Second)

	// After the second, informers left to themselves ask every half minute.
	for range 2 {
		if err := plane.Do(t.Context(), keeper.Kill, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		<-time.After(15 * time.Second)
		if err := plane.Do(t.Context(), keeper.Restart, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := c.Client.Create(t.Context(), service)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond) // it refuses everything until it has read who may do what
	}
	await(t, c, "shop", 3*time.Second)
}

// await waits until the cache has a Service.
func await(t *testing.T, c *Cluster, name string, most time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	for began := time.Now(); ; {
		err := c.Cache.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, &corev1.Service{})
		if err == nil {
			t.Logf("%s was seen after %v", name, time.Since(began))
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s was not seen within %v: %v", name, most, err)
		}
	}
}
