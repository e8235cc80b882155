package install

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Options of a release.
type Options struct {
	// Release and Namespace are "dormouse" where they are empty. The namespace is made.
	Release, Namespace string
	// Image is the activator's, as pods ask for it.
	Image string
	// Values are for helm's --set, such as "logLevel=debug".
	Values []string
}

// Release is Dormouse as it is installed.
type Release struct {
	Name, Namespace string
	Service         string // the name of the Service that traffic is sent to
	HTTP            string // address and port of it, inside of the cluster
}

// Install installs the chart, or upgrades a release that was left, and returns when helm says that it is ready.
func Install(ctx context.Context, helm *Helm, kube kubernetes.Interface, o Options) (*Release, error) {
	release, namespace := o.names()
	args := append([]string{"upgrade", "--install", release, helm.Chart, "--create-namespace"}, o.Arguments()...)
	if _, err := helm.Run(ctx, args...); err != nil {
		return nil, err
	}
	return Find(ctx, kube, release, namespace)
}

// Arguments are what helm install, upgrade and rollback of this release have in common: its namespace, that helm waits for
// it, and its values. A value of o.Values wins over one of ours.
func (o Options) Arguments() []string {
	_, namespace := o.names()
	repository, tag := splitImage(o.Image)
	args := []string{"--namespace", namespace, "--wait", "--timeout=90s"}
	for _, value := range append([]string{"image.repository=" + repository, "image.tag=" + tag, "image.pullPolicy=IfNotPresent"}, o.Values...) {
		args = append(args, "--set", value)
	}
	return args
}

// Find returns a release that is installed.
func Find(ctx context.Context, kube kubernetes.Interface, name, namespace string) (*Release, error) {
	services, err := kube.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector(name)})
	if err != nil {
		return nil, fmt.Errorf("find the Services of the release %s: %w", name, err)
	}
	r := &Release{Name: name, Namespace: namespace}
	for i := range services.Items {
		s := &services.Items[i]
		if address := portOf(s, "http"); address != "" {
			r.Service, r.HTTP = s.Name, address
		}
	}
	if r.Service == "" {
		return nil, fmt.Errorf("the release %s has no Service with a port named http in the namespace %s", name, namespace)
	}
	return r, nil
}

// Reach waits until the address for requests takes connections from here: kube-proxy learns of it a little later than
// helm. Only a host with routes to the cluster's Services gets there.
func (r *Release) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", r.HTTP)
		if err == nil {
			return c.Close()
		}
		pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("connect to the release %s: %w", r.Name, err)
		}
	}
}

// Pods returns the activators.
func (r *Release) Pods(ctx context.Context, kube kubernetes.Interface) ([]corev1.Pod, error) {
	pods, err := kube.CoreV1().Pods(r.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector(r.Name)})
	if err != nil {
		return nil, fmt.Errorf("list the activators: %w", err)
	}
	// A pod of helm test has the release's labels, too.
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !isActivator(&p) }), nil
}

// Pod returns the activator of a release that has one.
func (r *Release) Pod(ctx context.Context, kube kubernetes.Interface) (*corev1.Pod, error) {
	pods, err := r.Pods(ctx, kube)
	if err != nil {
		return nil, err
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if len(pods) != 1 {
		return nil, fmt.Errorf("the release %s has %d activators, not one", r.Name, len(pods))
	}
	return &pods[0], nil
}

func (o Options) names() (release, namespace string) {
	return cmp.Or(o.Release, "dormouse"), cmp.Or(o.Namespace, "dormouse")
}

// selector chooses what belongs to a release.
func selector(release string) string { return "app.kubernetes.io/instance=" + release }

func isActivator(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "ReplicaSet" })
}

func portOf(s *corev1.Service, name string) string {
	for _, port := range s.Spec.Ports {
		if port.Name == name && s.Spec.ClusterIP != corev1.ClusterIPNone {
			return net.JoinHostPort(s.Spec.ClusterIP, strconv.Itoa(int(port.Port)))
		}
	}
	return ""
}

// splitImage parts an image's name from its tag. A registry may have a port.
func splitImage(image string) (repository, tag string) {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i], image[i+1:]
	}
	return image, "latest"
}
