// Package cluster connects to one Kubernetes cluster: a client, and a cache that holds no more than what is used of it.
package cluster

import (
	"fmt"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/dormouse-dev/dormouse/scaling/v1alpha1"
)

// Options of a connection.
type Options struct {
	// Config tells where the API server is, and who we are. It is copied.
	Config *rest.Config
	// Namespaces are the ones that are looked at; empty: all. Of PodNamespace, whether it is one of them or not, Pods and
	// EndpointSlices are.
	Namespaces []string
	// PodNamespace and PodSelector are where the activators' own pods are; an empty namespace: nowhere, and the cache has
	// no Pods.
	PodNamespace string
	PodSelector  labels.Selector
}

// Cluster is a connection. Nothing is sent before it is used.
type Cluster struct {
	Config  *rest.Config // without a rate limit of its own
	Scheme  *runtime.Scheme
	Mapper  meta.RESTMapper
	Client  client.WithWatch // asks the API server, never the cache
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface

	// Cache has ElasticServices, Services and EndpointSlices of the namespaces, and the activators' own Pods with the
	// EndpointSlices of their namespace. Its objects are shared: they must not be changed. They lack what nobody here uses:
	// see strip.go.
	Cache cache.Cache

	Namespaces []string // empty: all

	PodSelector labels.Selector // of the activators' own pods; nil: every pod of their namespace
}

// Connect returns a connection. It does not wait for the API server.
func Connect(options Options) (*Cluster, error) {
	config := rest.CopyConfig(options.Config)
	config.QPS = -1 // the API server has priority and fairness; a limit of our own only makes wakes wait for each other
	config.UserAgent = "dormouse-activator"
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register types: %w", err)
		}
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	c := &Cluster{Config: config, Scheme: scheme, Namespaces: options.Namespaces, PodSelector: options.PodSelector}
	if err := c.connect(httpClient); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	if c.Cache, err = c.newCache(httpClient, options); err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	return c, nil
}

func (c *Cluster) connect(httpClient *http.Client) (err error) {
	discovered, err := apiutil.NewDynamicRESTMapper(c.Config, httpClient)
	if err != nil {
		return err
	}
	c.Mapper = meta.FirstHitRESTMapper{MultiRESTMapper: meta.MultiRESTMapper{known(), discovered}}
	if c.Client, err = client.NewWithWatch(c.Config, client.Options{HTTPClient: httpClient, Scheme: c.Scheme, Mapper: c.Mapper}); err != nil {
		return err
	}
	if c.Kube, err = kubernetes.NewForConfigAndClient(c.Config, httpClient); err != nil {
		return err
	}
	c.Dynamic, err = dynamic.NewForConfigAndClient(c.Config, httpClient)
	return err
}

// known maps the kinds that the cache has, so that it can be made before the API server answers, and before it knows
// ElasticServices.
func known() *meta.DefaultRESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion().WithKind("ElasticService"),
		corev1.SchemeGroupVersion.WithKind("Service"),
		corev1.SchemeGroupVersion.WithKind("Pod"),
		discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
	} {
		mapper.Add(kind, meta.RESTScopeNamespace)
	}
	return mapper
}

func (c *Cluster) newCache(httpClient *http.Client, options Options) (cache.Cache, error) {
	yes := true
	sliced := &discoveryv1.EndpointSlice{}
	by := map[client.Object]cache.ByObject{
		&v1alpha1.ElasticService{}: {Transform: stripElasticService},
		&corev1.Service{}:          {Transform: stripService},
		sliced:                     {Transform: stripEndpointSlice},
	}
	if options.PodNamespace != "" {
		by[&corev1.Pod{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{options.PodNamespace: {LabelSelector: options.PodSelector}},
			Transform:  stripOwnPod,
		}
	}
	o := cache.Options{
		HTTPClient: httpClient, Scheme: c.Scheme, Mapper: c.Mapper, ByObject: by,
		ReaderFailOnMissingInformer:  false,
		DefaultUnsafeDisableDeepCopy: &yes,
		NewInformer:                  newPatientInformer,
	}
	if len(options.Namespaces) > 0 {
		o.DefaultNamespaces = make(map[string]cache.Config, len(options.Namespaces))
		for _, namespace := range options.Namespaces {
			o.DefaultNamespaces[namespace] = cache.Config{}
		}
		if options.PodNamespace != "" { // these tell who is sent to the activators by the Service that all share
			slices := maps.Clone(o.DefaultNamespaces)
			slices[options.PodNamespace] = cache.Config{}
			by[sliced] = cache.ByObject{Namespaces: slices, Transform: stripEndpointSlice}
		}
	}
	return cache.New(c.Config, o)
}
