package target

import (
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// object is what is kept of a watched object. It is immutable.
type object struct {
	name       types.NamespacedName
	uid        types.UID
	rv         string
	generation int64
	observed   int64 // status.observedGeneration; -1: it does not say

	// Of kinds that tell their scale.
	spec     int32
	selector string

	// refused is the message of its condition ReplicaFailure, where that is true.
	refused string
}

func objectOf(u *unstructured.Unstructured, tells bool) *object {
	o := &object{
		name: types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()},
		uid:  u.GetUID(), rv: u.GetResourceVersion(), generation: u.GetGeneration(),
		observed: observedOf(u.Object), spec: -1, refused: refusedOf(u.Object),
	}
	if tells {
		o.spec = 1 // the API's default
		if replicas, ok, err := unstructured.NestedInt64(u.Object, "spec", "replicas"); ok && err == nil {
			o.spec = int32(replicas) //nolint:gosec // the API's own type
		}
		o.selector = selectorOf(u.Object)
	}
	return o
}

// version changes with the object's wish for replicas. Objects without a generation change it more often.
func (o *object) version() string {
	if o.generation == 0 {
		return "rv" + o.rv
	}
	return strconv.FormatInt(o.generation, 10)
}

func (o *object) settled() bool { return o.observed >= 0 && o.observed >= o.generation }

// observedOf reads a number, or, as of Argo's Rollouts, its decimals.
func observedOf(o map[string]any) int64 {
	value, ok, err := unstructured.NestedFieldNoCopy(o, "status", "observedGeneration")
	if !ok || err != nil {
		return -1
	}
	switch value := value.(type) {
	case int64:
		return value
	case string:
		if number, err := strconv.ParseInt(value, 10, 64); err == nil {
			return number
		}
	}
	return -1
}

func refusedOf(o map[string]any) string {
	conditions, _, err := unstructured.NestedFieldNoCopy(o, "status", "conditions")
	list, ok := conditions.([]any)
	if err != nil || !ok {
		return ""
	}
	for _, c := range list {
		if c, ok := c.(map[string]any); ok && c["type"] == "ReplicaFailure" && c["status"] == "True" {
			if message, ok := c["message"].(string); ok && message != "" {
				return message
			}
			return "its condition ReplicaFailure is true"
		}
	}
	return ""
}

func selectorOf(o map[string]any) string {
	fields, ok, err := unstructured.NestedMap(o, "spec", "selector")
	if !ok || err != nil {
		return ""
	}
	var selector metav1.LabelSelector
	if runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &selector) != nil {
		return ""
	}
	return metav1.FormatLabelSelector(&selector)
}

// newer compares resource versions. One that is no number, and not the same, may be newer.
func newer(a, b string) bool {
	if a == b {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// later compares resource versions. One that is no number is not later than any.
func later(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order > 0
}

// strip drops what objectOf does not look at, before a whole list of objects is in memory.
func strip(o any) (any, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	small := &unstructured.Unstructured{Object: map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind()}}
	small.SetNamespace(u.GetNamespace())
	small.SetName(u.GetName())
	small.SetUID(u.GetUID())
	small.SetResourceVersion(u.GetResourceVersion())
	small.SetGeneration(u.GetGeneration())
	for _, path := range [][]string{{"spec", "replicas"}, {"spec", "selector"}, {"status", "observedGeneration"}, {"status", "conditions"}} {
		if value, ok, err := unstructured.NestedFieldNoCopy(u.Object, path...); ok && err == nil {
			part, _ := small.Object[path[0]].(map[string]any)
			if part == nil {
				part = make(map[string]any, 2)
				small.Object[path[0]] = part
			}
			part[path[1]] = value
		}
	}
	return small, nil
}
