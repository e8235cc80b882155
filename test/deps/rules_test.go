package deps

// rule forbids imports. Packages are named by patterns as the go command's: "./…" are the module's own, and a last
// element "..." stands for the package and all below it.
type rule struct {
	from   []string // the packages that it binds
	except []string // those among them that it does not bind
	to     []string // what they must not import
	deep   bool     // nor reach through what they import
	why    string   // the reason, told to whoever breaks it
}

// rules are the arrows of docs/ARCHITECTURE.md that must not be drawn. They bind what is shipped: test files may import
// what they like.
func rules() []rule {
	programs := []string{"./cmd/...", "./test/...", "./hack/...", "./bench/...", "./examples/..."}
	planes := []string{"./activator/...", "./elastiserver/..."}
	return []rule{
		{
			from: []string{"./metrics/..."},
			to:   []string{"./..."},
			why:  "everything reports to metrics, so metrics can know of nothing",
		},
		{
			from: []string{"./scaling"},
			to:   []string{"./scaling/..."},
			deep: true,
			why:  "the portable types know no backend: a new one must not need a change to them",
		},
		{
			from: []string{"./scaling/..."},
			to:   planes,
			deep: true,
			why:  "scaling serves both planes and knows neither; what it tells them goes through interfaces",
		},
		{
			from: []string{"./scaling/local/..."},
			to:   []string{"./scaling/kube/...", "./scaling/v1alpha1/..."},
			deep: true,
			why:  "backends are alternatives: what two of them share belongs in scaling or scaling/probe",
		},
		{
			from: []string{"./scaling/kube/..."},
			to:   []string{"./scaling/local/..."},
			deep: true,
			why:  "backends are alternatives: what two of them share belongs in scaling or scaling/probe",
		},
		{
			from: []string{"./scaling/probe/...", "./scaling/v1alpha1/...", "./scaling/backendtest/..."},
			to:   []string{"./scaling/local/...", "./scaling/kube/..."},
			deep: true,
			why:  "it is shared by the backends, so it can prefer none",
		},
		{
			from: []string{"./activator/..."},
			to:   []string{"./elastiserver/..."},
			deep: true,
			why:  "the data plane goes on while the control plane restarts; cmd introduces them through interfaces",
		},
		{
			from: []string{"./elastiserver/..."},
			to:   []string{"./activator/..."},
			deep: true,
			why:  "waking needs no proxy: resolvers and people wake services too, through the API alone",
		},
		{
			from: []string{"./elastiserver/peers"},
			to:   []string{"./elastiserver", "./elastiserver/peers/stream/...", "net", "net/http/...", "crypto/tls"},
			why:  "what activators tell each other knows not how it travels: test/fleet plays it on a network that does its worst",
		},
		{
			from: []string{"./elastiserver/peers/stream/..."},
			to:   []string{"./elastiserver", "./scaling/..."},
			why:  "a stream carries messages and knows nothing of what they are about",
		},
		{
			from: []string{"./scaling/kube/election/...", "./scaling/kube/trust/..."},
			to: []string{
				"./scaling/kube", "./scaling/kube/cluster/...", "./scaling/kube/resource/...",
				"./scaling/kube/mirror/...", "./scaling/kube/members/...", "./scaling/kube/target/...",
			},
			deep: true,
			why:  "who leads and who calls is the API server's word alone, read past all caches",
		},
		{
			from: planes,
			to:   []string{"./scaling/local/...", "./scaling/kube/...", "./scaling/v1alpha1/..."},
			deep: true,
			why:  "a laptop and a cluster are served by the same planes; a backend reaches them as an interface that they declare",
		},
		{
			from: []string{
				"./activator/...", "./elastiserver/...", "./metrics/...",
				"./scaling", "./scaling/local/...", "./scaling/probe/...", "./scaling/backendtest/...",
			},
			to:   []string{"k8s.io/...", "sigs.k8s.io/controller-runtime/..."},
			deep: true,
			why:  "Kubernetes is one backend; its client libraries stay behind scaling/kube",
		},
		{
			from: []string{"./activator/..."},
			to:   []string{"./activator"},
			why:  "activator assembles the engines; what they share lies beside them, not above",
		},
		{
			from: []string{
				"./activator/route/...", "./activator/hold/...", "./activator/balance/...",
				"./activator/service/...", "./activator/problem/...", "./activator/tcp/...",
			},
			to:   []string{"./activator/httpx/...", "./activator/http1/..."},
			deep: true,
			why:  "engines use the decisions, and what they share; a decision that knew its engine would have to be taken twice",
		},
		{
			from: []string{"./activator/route/...", "./activator/hold/...", "./activator/balance/..."},
			to:   []string{"./activator/service/...", "./activator/problem/...", "./activator/tcp/..."},
			deep: true,
			why:  "what engines share is made of the decisions, which know nothing of connections and answers",
		},
		{
			from: []string{"./activator/tcp/...", "./activator/http1/sock/...", "./activator/http1/syntax/..."},
			to:   []string{"./..."},
			why:  "sockets and grammar are learnt from the kernel and the RFCs alone, and tested and fuzzed without the rest",
		},
		{
			from: []string{"./activator/httpx/..."},
			to:   []string{"./activator/http1/..."},
			why:  "engines are alternatives: each must be able to go without the other noticing",
		},
		{
			from: []string{"./activator/http1/..."},
			to:   []string{"./activator/httpx/..."},
			why:  "engines are alternatives: each must be able to go without the other noticing",
		},
		{
			from: []string{"./activator/http1/...", "./activator/service/...", "./activator/tcp/..."},
			to:   []string{"net/http/...", "golang.org/x/net/http/..."},
			why:  "an engine of our own that leant on net/http's would have its limits; the statuses are in activator/problem",
		},
		{
			from: []string{"./activator/route/...", "./activator/hold/...", "./activator/balance/...", "./scaling"},
			to:   []string{"net/http"},
			why:  "it decides for every engine and protocol; an *http.Request here would bind an engine of our own to net/http's",
		},
		{
			from: []string{"./activator/...", "./elastiserver/...", "./metrics/...", "./scaling"},
			to:   []string{"google.golang.org/grpc/..."},
			deep: true,
			why:  "gRPC is forwarded as HTTP/2 and refused with three headers; only scaling/probe has to speak it",
		},
		{
			from:   []string{"./..."},
			except: programs,
			to:     []string{"flag", "github.com/spf13/cobra/...", "github.com/spf13/pflag/...", "os/signal"},
			why:    "the command line and the process's signals belong to cmd; packages take values and a context",
		},
		{
			from:   []string{"./..."},
			except: programs,
			to:     programs,
			why:    "programs are made of packages, never the other way",
		},
		{
			from:   []string{"./..."},
			except: append([]string{"./scaling/backendtest/..."}, programs[1:]...),
			to: []string{
				"./scaling/backendtest/...", "./test/...", "testing/...", "net/http/httptest",
				"go.uber.org/goleak/...", "github.com/coder/websocket/...",
			},
			why: "what only tests need is not shipped",
		},
	}
}
