package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ElasticService makes a Service sleep at zero replicas while nobody uses it. Requests that are sent to it by way of
// Dormouse wake it, and wait until it can answer.
//
// Its name is a DNS label of at most 53 characters: Dormouse makes a Service named <name>-activator beside it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=esvc,categories=all,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyEndpoints`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.scaleTargetRef.name`
// +kubebuilder:printcolumn:name="Last active",type=date,JSONPath=`.status.lastActiveTime`
// +kubebuilder:printcolumn:name="Last cold start",type=string,JSONPath=`.status.lastColdStart`
// +kubebuilder:printcolumn:name="Port",type=integer,JSONPath=`.status.activatorPort`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 53",message="metadata.name must be a DNS label that begins with a letter, of at most 53 characters"
type ElasticService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	Spec ElasticServiceSpec `json:"spec"`
	// Status is what Dormouse found. It is written by Dormouse alone.
	// +optional
	Status ElasticServiceStatus `json:"status,omitempty"`
}

// ElasticServiceList is a list of them.
//
// +kubebuilder:object:root=true
type ElasticServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ElasticService `json:"items"`
}

// ElasticServiceSpec is what is wanted of a service.
type ElasticServiceSpec struct {
	// Service is the Service whose endpoints answer, in the same namespace.
	Service ServiceReference `json:"service"`
	// ScaleTargetRef names what is scaled, in the same namespace: anything with a scale subresource, such as a Deployment,
	// a StatefulSet or a custom resource. Several ElasticServices may name one target; it sleeps when all of them are idle.
	ScaleTargetRef ScaleTargetReference `json:"scaleTargetRef"`
	// Routes are the requests at Dormouse's shared port that belong to this service, besides those for its own names:
	// <name>.<namespace>, <name>.<namespace>.svc and <name>.<namespace>.svc.<cluster domain>.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Routes []Route `json:"routes,omitempty"`
	// Replicas bounds what Dormouse asks for.
	// +optional
	// +kubebuilder:default={min: 0, wake: 0, max: 0}
	Replicas Replicas `json:"replicas,omitempty"`
	// Idle says when the service is put to sleep.
	// +optional
	// +kubebuilder:default={}
	Idle Idle `json:"idle,omitempty"`
	// Hold says how requests wait for the service.
	// +optional
	// +kubebuilder:default={}
	Hold Hold `json:"hold,omitempty"`
	// Endpoint says how the service's endpoints are spoken to.
	// +optional
	// +kubebuilder:default={}
	Endpoint Endpoint `json:"endpoint,omitempty"`
	// Timeouts bound one request. Zero means none.
	// +optional
	// +kubebuilder:default={}
	Timeouts Timeouts `json:"timeouts,omitempty"`
	// Readiness says how Dormouse learns that an endpoint can answer.
	// +optional
	// +kubebuilder:default={}
	Readiness Readiness `json:"readiness,omitempty"`
	// OnDelete says what becomes of a sleeping target when this resource is deleted, or names another one: Wake wakes it,
	// Leave leaves it as it is.
	// +optional
	// +kubebuilder:default=Wake
	OnDelete DeletePolicy `json:"onDelete,omitempty"`
}

// ServiceReference names a port of a Service.
//
// +kubebuilder:validation:XValidation:rule="!has(self.port) || (type(self.port) == string ? self.port.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.port) <= 63 : self.port >= 1 && self.port <= 65535)",message="port must be the name of one of the Service's ports, or a number from 1 to 65535"
type ServiceReference struct {
	// Name of the Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Port of the Service: its name or its number. It may be left out where the Service has one port only.
	// +optional
	// +kubebuilder:validation:XIntOrString
	Port *intstr.IntOrString `json:"port,omitempty"`
}

// ScaleTargetReference names what is scaled.
type ScaleTargetReference struct {
	// APIVersion of the target, such as "apps/v1".
	// +optional
	// +kubebuilder:default="apps/v1"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-z]([-a-z0-9]*[a-z0-9])?$`
	APIVersion string `json:"apiVersion,omitempty"`
	// Kind of the target, such as "Deployment".
	// +optional
	// +kubebuilder:default="Deployment"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$`
	Kind string `json:"kind,omitempty"`
	// Name of the target.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`
}

// Route is one set of conditions under which a request belongs to the service. Conditions of different kinds must all
// hold; one that is left out holds always.
//
// +kubebuilder:validation:MinProperties=1
type Route struct {
	// Hosts of the request, such as "shop.example.com" or "*.example.com", which covers any number of labels. A host
	// belongs to one namespace: that of the oldest resource that names it.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^(\*\.)?[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*$`
	Hosts []string `json:"hosts,omitempty"`
	// Paths are prefixes that end on a segment boundary: "/api" matches /api and /api/x, not /apix.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:Pattern=`^/[!-"$->@-~]*$`
	Paths []string `json:"paths,omitempty"`
	// Headers that the request has, every one of them.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Headers []HeaderMatch `json:"headers,omitempty"`
}

// HeaderMatch is a header field that a request has.
type HeaderMatch struct {
	// Name of the field. Case does not matter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern="^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"
	Name string `json:"name"`
	// Value of the field, compared exactly. Left out: any.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
}

// Replicas bounds what Dormouse writes to the target's scale.
//
// +kubebuilder:validation:XValidation:rule="self.max == 0 || self.max >= self.min",message="max must be 0 (no bound) or at least min"
// +kubebuilder:validation:XValidation:rule="self.max == 0 || self.max >= self.wake",message="max must be 0 (no bound) or at least wake"
// +kubebuilder:validation:XValidation:rule="self.wake == 0 || self.wake >= self.min",message="wake must be 0 (as many as before) or at least min"
type Replicas struct {
	// Min is what a sleeping target keeps.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	Min int32 `json:"min"`
	// Wake is what a wake asks for; 0 is what the target had before it was put to sleep, at least 1.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	Wake int32 `json:"wake"`
	// Max is the most that a wake asks for; 0 is no bound of Dormouse's.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	Max int32 `json:"max"`
}

// Idle says when a service counts as unused.
type Idle struct {
	// After is how long the last activity must be past: held requests, requests in flight, open streams and upgraded
	// connections are activity. "0s": the target is never put to sleep.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 5m"
	After Duration `json:"after,omitempty"`
	// Initial lets the target be put to sleep although Dormouse has carried no request for it since this resource was made.
	// By default it is not, because whoever uses it may not have been switched to Dormouse yet.
	// +optional
	// +kubebuilder:default=false
	Initial bool `json:"initial,omitempty"`
}

// Hold says how a service's requests wait.
type Hold struct {
	// Timeout is how long a request waits at most; then it is answered with 504. "0s": as long as its client does.
	// +optional
	// +kubebuilder:default="2m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 2m"
	Timeout Duration `json:"timeout,omitempty"`
	// MaxRequests is how many requests wait at once in one activator; more are answered with 503. 0: no bound for this
	// service.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=0
	MaxRequests int32 `json:"maxRequests"`
	// FailFast answers those who wait as soon as it is known that the target cannot start. When false they wait for Timeout.
	// +optional
	// +kubebuilder:default=true
	FailFast *bool `json:"failFast,omitempty"`
}

// Endpoint says how endpoints are spoken to.
type Endpoint struct {
	// Protocol of the endpoints: HTTP1, H2C (HTTP/2 in clear text), HTTPS, or Auto: what the Service's appProtocol says,
	// and HTTP1 where it says nothing.
	// +optional
	// +kubebuilder:default=Auto
	Protocol Protocol `json:"protocol,omitempty"`
	// MaxConcurrency is how many requests one endpoint gets at once; the others wait. 0: no bound.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	MaxConcurrency int32 `json:"maxConcurrency"`
	// TLS is for endpoints that speak HTTPS.
	// +optional
	TLS *EndpointTLS `json:"tls,omitempty"`
}

// EndpointTLS says how the certificates of endpoints are verified: for the Service's name and against the system's
// roots, unless it says otherwise.
//
// +kubebuilder:validation:XValidation:rule="!self.insecureSkipVerify || !has(self.caConfigMap)",message="caConfigMap has no meaning where insecureSkipVerify is true; leave one of them out"
type EndpointTLS struct {
	// ServerName is the name that the certificate must have. Left out: <service>.<namespace>.svc.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
	// CAConfigMap is the name of a ConfigMap in the same namespace, whose key ca.crt has the certificates, in PEM, that are
	// trusted instead of the system's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	CAConfigMap string `json:"caConfigMap,omitempty"`
	// InsecureSkipVerify takes any certificate.
	// +optional
	// +kubebuilder:default=false
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// Timeouts of one request that was handed to an endpoint. Zero means none.
type Timeouts struct {
	// Dial bounds one attempt to connect to one endpoint.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 1s"
	Dial Duration `json:"dial,omitempty"`
	// ResponseHeader is from the request's last byte sent to the response's header received.
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 30s"
	ResponseHeader Duration `json:"responseHeader,omitempty"`
	// Idle is how long no byte may pass in either direction, upgraded connections included.
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 5m"
	Idle Duration `json:"idle,omitempty"`
	// Total is from the endpoint found to the last byte.
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration of 0s or more, such as 1h"
	Total Duration `json:"total,omitempty"`
}

// Readiness says how Dormouse learns that an endpoint can answer.
type Readiness struct {
	// Mode Auto asks a starting pod itself, by the pod's own readiness probes, so that it is used as soon as it can answer and
	// not only when kubelet's next probe is due. Endpoints waits until Kubernetes says so.
	// +optional
	// +kubebuilder:default=Auto
	Mode ReadinessMode `json:"mode,omitempty"`
}

// Duration is a length of time such as 90s, 5m or 1h30m.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
type Duration string

// Protocol is how endpoints are spoken to.
//
// +kubebuilder:validation:Enum=Auto;HTTP1;H2C;HTTPS
type Protocol string

// The protocols.
const (
	ProtocolAuto  Protocol = "Auto"
	ProtocolHTTP1 Protocol = "HTTP1"
	ProtocolH2C   Protocol = "H2C"
	ProtocolHTTPS Protocol = "HTTPS"
)

// ReadinessMode is how readiness is learnt.
//
// +kubebuilder:validation:Enum=Auto;Endpoints
type ReadinessMode string

// The modes.
const (
	ReadinessAuto      ReadinessMode = "Auto"
	ReadinessEndpoints ReadinessMode = "Endpoints"
)

// DeletePolicy is what becomes of a sleeping target.
//
// +kubebuilder:validation:Enum=Wake;Leave
type DeletePolicy string

// The policies.
const (
	DeleteWake  DeletePolicy = "Wake"
	DeleteLeave DeletePolicy = "Leave"
)

// ElasticServiceStatus is what Dormouse found.
type ElasticServiceStatus struct {
	// ObservedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase is where the target stands in its life: Asleep, Waking, Awake, Draining or Failed.
	// +optional
	Phase string `json:"phase,omitempty"`
	// Replicas is the target's wish for replicas.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// ReadyEndpoints is how many endpoints can answer.
	// +optional
	ReadyEndpoints *int32 `json:"readyEndpoints,omitempty"`
	// WakeReplicas is what the target had when it was put to sleep, and gets back when it is woken.
	// +optional
	WakeReplicas int32 `json:"wakeReplicas,omitempty"`
	// LastActiveTime is when Dormouse last saw the service in use, as of the last change of this status. Set, it tells that
	// Dormouse has carried requests for it.
	// +optional
	LastActiveTime *metav1.Time `json:"lastActiveTime,omitempty"`
	// LastWakeTime is when the last wake began.
	// +optional
	LastWakeTime *metav1.Time `json:"lastWakeTime,omitempty"`
	// LastColdStart is how long the last cold start took, from the first request to the first byte of its answer.
	// +optional
	LastColdStart string `json:"lastColdStart,omitempty"`
	// ActivatorPort is the port of every activator at which all requests belong to this service, whatever their Host.
	// +optional
	ActivatorPort int32 `json:"activatorPort,omitempty"`
	// Conditions: Accepted, TargetFound, EndpointsFound and Ready are always there; HostClaimed, NameTaken, NoTrafficYet,
	// Contended, SleepSuspended and ActivatorService tell what else is to be known.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// The types of conditions.
const (
	// ConditionAccepted is True when the spec is in use. False: its message names the field at fault.
	ConditionAccepted = "Accepted"
	// ConditionTargetFound is True when the scale target exists and can be scaled.
	ConditionTargetFound = "TargetFound"
	// ConditionEndpointsFound is True when the Service and its port exist.
	ConditionEndpointsFound = "EndpointsFound"
	// ConditionReady is True when a request would be answered now, or after a wake: the service is awake, or asleep with
	// nothing known against waking it. It is False while the target cannot start, with the reason's word.
	ConditionReady = "Ready"
	// ConditionHostClaimed is True when some routes are not accepted because their hosts belong to another namespace.
	ConditionHostClaimed = "HostClaimed"
	// ConditionNameTaken is True when a Service named <name>-activator exists that is not Dormouse's.
	ConditionNameTaken = "NameTaken"
	// ConditionActivatorService is True when <name>-activator leads to an activator that listens for this service.
	ConditionActivatorService = "ActivatorService"
	// ConditionNoTrafficYet is True while the target is not put to sleep because no request was carried for it yet.
	ConditionNoTrafficYet = "NoTrafficYet"
	// ConditionContended is True when another writer reverted the scale again and again, so that the target is not put to
	// sleep any more.
	ConditionContended = "Contended"
	// ConditionSleepSuspended is True while the target is not put to sleep because no activator leads, or because one of them is
	// silent and may be using it.
	ConditionSleepSuspended = "SleepSuspended"
)

const (
	// Finalizer keeps a deleted ElasticService until its target is awake and nobody waits for it.
	Finalizer = "dormouse.dev/wake"
	// AnnotationPinnedUntil keeps the target awake until its time, which is in RFC 3339.
	AnnotationPinnedUntil = "dormouse.dev/pinned-until"
)
