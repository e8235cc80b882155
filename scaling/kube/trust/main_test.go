package trust_test

import (
	"context"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	testcluster "github.com/dormouse-dev/dormouse/test/cluster"
)

// The tests share a control plane; each has a namespace of its own.
func TestTrust(t *testing.T) {
	plane := testcluster.Start(t, testcluster.Options{ControlPlaneOnly: true})
	config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(t *testing.T, w *world){
		"a token says whose it is, and whom it is for": aTokenSaysWhoseItIs,
		"a token ends":                                            aTokenEnds,
		"a right holds until it is taken away":                    aRightHoldsUntilItIsTakenAway,
		"a right to one service is none to another":               aRightToOneServiceIsNoneToAnother,
		"a path of its own needs a right of its own":              aPathNeedsARight,
		"a peer is a pod of the activators' account":              aPeerIsAPod,
		"a peer is known no longer than its pod is there":         aPeerIsKnownWhileItsPodIsThere,
		"who has no right to review is told nothing about others": whoMayNotReviewIsToldNothing,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, client, config))
		})
	}
}

type world struct {
	*kubernetes.Clientset
	config    *rest.Config
	namespace string
}

func newWorld(t *testing.T, client *kubernetes.Clientset, config *rest.Config) *world {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "trust-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &world{client, config, ns.Name}
}

func (w *world) account(t *testing.T, name string) {
	t.Helper()
	_, err := w.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// pod makes a Pod that no scheduler knows, and that runs as an account.
func (w *world) pod(t *testing.T, name, account string) *corev1.Pod {
	t.Helper()
	p, err := w.CoreV1().Pods(w.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody", ServiceAccountName: account, Containers: []corev1.Container{{Name: "activator", Image: "activator"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// token asks for a token of an account, as the kubelet would for a pod. A nil pod is none.
func (w *world) token(t *testing.T, account string, pod *corev1.Pod, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	answer, err := w.CoreV1().ServiceAccounts(w.namespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// eventually fails the test unless something comes to hold within the time that answers are remembered, and a little.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not within 20 s", what)
	}
}

// as returns a client that has a token and nothing else.
func (w *world) as(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
