package chart

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// rights are verbs by "resource.group", or "resource.group/name" for one object.
type rights map[string]string

// needed is what an activator does in a namespace that it looks at.
func needed() rights {
	return rights{
		"elasticservices.dormouse.dev":            "get list patch watch",
		"elasticservices/status.dormouse.dev":     "patch",
		"elasticservices/finalizers.dormouse.dev": "update",
		"services.":                       "create delete get list patch watch",
		"endpointslices.discovery.k8s.io": "create delete list update watch",
		"pods.":                           "get list watch",
		"configmaps.":                     "get",
		"events.":                         "list watch",
		"events.events.k8s.io":            "create",
		"deployments.apps":                "list watch",
		"statefulsets.apps":               "list watch",
		"replicasets.apps":                "list watch",
		"deployments/scale.apps":          "get update",
		"statefulsets/scale.apps":         "get update",
		"replicasets/scale.apps":          "get update",
	}
}

func TestAnActivatorMayDoWhatItDoesAndNothingElse(t *testing.T) {
	t.Parallel()
	c, config, client := plane(t, space, "web", "blog")
	targets := []string{"--set", "extraScaleTargets[0].apiGroups[0]=argoproj.io", "--set", "extraScaleTargets[0].resources[0]=rollouts"}
	must(t, c.Kubeconfig(), append([]string{"install", "dormouse", chart(t), "--namespace", space}, targets...)...)
	must(t, c.Kubeconfig(), "install", "sleepy", chart(t), "--namespace", space, "--set", "namespaces={web},crds.install=false")

	home := func(all rights, fullname string) rights {
		maps.Copy(all, rights{
			"leases.coordination.k8s.io": "create", "leases.coordination.k8s.io/" + fullname: "get update",
			"secrets./" + fullname + "-control": "get update",
		})
		return all
	}
	everywhere := func(all rights) rights {
		all["tokenreviews.authentication.k8s.io"], all["subjectaccessreviews.authorization.k8s.io"] = "create", "create"
		return all
	}
	more := everywhere(needed())
	more["rollouts.argoproj.io"], more["rollouts/scale.argoproj.io"] = "list watch", "get update"
	for _, x := range []struct {
		account, namespace string
		want               rights
	}{
		{"dormouse", space, home(maps.Clone(more), "dormouse")},
		{"dormouse", "web", more},
		{"dormouse", "kube-system", more},
		{"sleepy-dormouse", space, everywhere(home(rights{"pods.": "get list watch", "endpointslices.discovery.k8s.io": "list watch"}, "sleepy-dormouse"))},
		{"sleepy-dormouse", "web", everywhere(needed())},
		{"sleepy-dormouse", "blog", everywhere(rights{})},
	} {
		want := allowed(t, config, "nobody", x.namespace)
		maps.Copy(want, x.want)
		eventually(t, config, x.account, x.namespace, want)
	}

	t.Run("who uninstalls may stop the one Deployment", func(t *testing.T) {
		uninstall := render(t, "--show-only", "templates/uninstall.yaml", "--set", "fullnameOverride=sleepy-dormouse")
		kubectl(t, c, uninstall, "create", "--filename", "-")
		want := allowed(t, config, "nobody", space)
		maps.Copy(want, everywhere(home(rights{"pods.": "get list watch", "endpointslices.discovery.k8s.io": "list watch"}, "sleepy-dormouse"))) // as an activator
		maps.Copy(want, rights{
			"deployments.apps/sleepy-dormouse": "get", "deployments/scale.apps/sleepy-dormouse": "patch",
			"leases.coordination.k8s.io/sleepy-dormouse": "delete get update",
		})
		eventually(t, config, "sleepy-dormouse", space, want)
	})
	t.Run("people may do with ElasticServices what their roles say", func(t *testing.T) {
		for name, may := range map[string]string{"view": "get list watch", "edit": "get list watch create update patch delete deletecollection", "admin": "get list watch create update patch delete deletecollection"} {
			kubectl(t, c, "", "create", "rolebinding", name, "--clusterrole="+name, "--user="+name, "--namespace=web")
			for verb := range strings.FieldsSeq("get list watch create update patch delete deletecollection") {
				review(t, client, name, verb, "web", slices.Contains(strings.Fields(may), verb))
			}
			review(t, client, name, "get", "blog", false)
			for _, action := range []string{"wake", "sleep", "pin"} {
				review(t, client, name, "create/"+action, "web", name != "view")
				review(t, client, name, "create/"+action, "blog", false)
			}
		}
	})
}

// onlyReviews is what an activator may do of which no namespace is asked: find out who somebody is, and what he may do.
const onlyReviews = `[{"apiGroups":["authentication.k8s.io"],"resources":["tokenreviews"],"verbs":["create"]},` +
	`{"apiGroups":["authorization.k8s.io"],"resources":["subjectaccessreviews"],"verbs":["create"]}]`

func TestWithNamespacesThereIsNothingForTheWholeClusterButReviews(t *testing.T) {
	t.Parallel()
	for _, object := range parse(t, render(t, "--set", "namespaces={web,blog},crds.install=false")) {
		reviews := strings.HasSuffix(object.GetName(), "-callers-"+space)
		if object.GetNamespace() == "" && !reviews {
			t.Errorf("%s %s belongs to no namespace", object.GetKind(), object.GetName())
		}
		if rules, err := json.Marshal(object.Object["rules"]); err != nil || strings.Contains(string(rules), `"*"`) || reviews && object.GetKind() == "ClusterRole" && string(rules) != onlyReviews {
			t.Errorf("%s %s has a rule for anything: %s (%v)", object.GetKind(), object.GetName(), rules, err)
		}
	}
}

// allowed asks the API server for all that a ServiceAccount of the release's namespace may do in a namespace.
func allowed(t *testing.T, config *rest.Config, account, namespace string) rights {
	t.Helper()
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + space + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + space, "system:authenticated"},
	}
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		t.Fatal(err)
	}
	verbs := map[string]map[string]bool{}
	answer, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status.Incomplete {
		t.Fatalf("the API server cannot tell all: %s", answer.Status.EvaluationError)
	}
	for _, rule := range answer.Status.ResourceRules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					key := resource + "." + group
					if name != "" {
						key += "/" + name
					}
					if verbs[key] == nil {
						verbs[key] = map[string]bool{}
					}
					for _, verb := range rule.Verbs {
						verbs[key][verb] = true
					}
				}
			}
		}
	}
	all := rights{}
	for resource, set := range verbs {
		all[resource] = strings.Join(slices.Sorted(maps.Keys(set)), " ")
	}
	return all
}

// eventually fails the test unless an account comes to have just these rights. The API server learns of roles by a watch.
func eventually(t *testing.T, config *rest.Config, account, namespace string, want rights) {
	t.Helper()
	var got rights
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		got = allowed(t, config, account, namespace)
		return maps.Equal(got, want), nil
	})
	if err == nil {
		return
	}
	all := maps.Clone(got)
	maps.Copy(all, want)
	for _, resource := range slices.Sorted(maps.Keys(all)) {
		if got[resource] != want[resource] {
			t.Errorf("%s in %s: %s: may %q, want %q", account, namespace, resource, got[resource], want[resource])
		}
	}
}

// review fails the test unless a user may, or may not, do something with ElasticServices. What is aggregated into roles
// is so by a controller, a moment after they were made.
func review(t *testing.T, client *kubernetes.Clientset, user, verb, namespace string, want bool) {
	t.Helper()
	verb, subresource, _ := strings.Cut(verb, "/")
	question := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               user,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "dormouse.dev", Resource: "elasticservices", Subresource: subresource, Verb: verb, Namespace: namespace},
	}}
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		var answer *authorizationv1.SubjectAccessReview
		answer, last = client.AuthorizationV1().SubjectAccessReviews().Create(ctx, question, metav1.CreateOptions{})
		return last == nil && answer.Status.Allowed == want, nil
	})
	if err != nil {
		t.Errorf("%s may %s elasticservices in %s: want %t (%v, %v)", user, verb, namespace, want, err, last)
	}
}
