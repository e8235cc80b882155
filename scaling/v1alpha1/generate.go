package v1alpha1

// The chart installs the definition from a template, not from Helm's crds folder, which helm upgrade does not look at.
//
//go:generate go tool -modfile=../../hack/tools/go.mod controller-gen object crd paths=. output:crd:dir=../../charts/dormouse/files/crds
//go:generate go run ../../hack/reference ../../charts/dormouse/files/crds/dormouse.dev_elasticservices.yaml types.go ../../docs/elasticservice.md
