package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// Group is the API group.
	Group = "dormouse.dev"
	// Version is this version of it.
	Version = "v1alpha1"
)

// GroupVersion returns the group and version that the types of this package have.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// AddToScheme makes a scheme know the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &ElasticService{}, &ElasticServiceList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
