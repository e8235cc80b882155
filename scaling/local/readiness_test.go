package local

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// serveHTTP is a server whose /healthz answers 503 until somebody has asked for /open.
func serveHTTP() error {
	var open atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/open", func(http.ResponseWriter, *http.Request) { open.Store(true) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !open.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "listening")
	return http.Serve(listener, mux)
}

// serveGRPC is a server that has nothing but a health service.
func serveGRPC() error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	states := health.NewServer()
	states.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, states)
	return server.Serve(listener)
}

func role(name string) Process {
	return Process{Command: []string{os.Args[0]}, Env: map[string]string{"DORMOUSE_TEST_CHILD": name}}
}

func TestReadinessByHTTPWaitsForTheAnswer(t *testing.T) {
	definition := define("shop", role("http"))
	definition.Readiness = Readiness{Kind: probe.HTTP, Path: "/healthz"}
	definition.Service.Upstream.MaxConcurrency = 7
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	logs.await("listening")
	pending := await(t, backend, definition, "it to run", func(*scaling.Endpoints) bool { return true }).Pending
	if len(pending) != 1 || pending[0].Stage != scaling.StageRunning || pending[0].Reason != "NotReady" {
		t.Errorf("while it answers 503: got %+v, want it running and NotReady", pending)
	}
	address := portOf(t, backend, definition)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + "/open")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	want := scaling.Endpoint{ID: pending[0].ID, Address: address, Protocol: scaling.ProtocolHTTP1, Capacity: 7}
	if got := awaitReady(t, backend, definition, 1)[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadinessByGRPCMakesTheProtocolH2C(t *testing.T) {
	definition := define("shop", role("grpc"))
	definition.Readiness = Readiness{Kind: probe.GRPC, Service: "shop.Cart"}
	other := define("other", role("grpc"))
	other.Readiness = Readiness{Kind: probe.GRPC, Service: "shop.Unknown"}
	backend, logs := runBackend(t, definition, other)
	scale(t, backend, other, 1)
	scale(t, backend, definition, 1)
	if got := awaitReady(t, backend, definition, 1)[0]; got.Protocol != scaling.ProtocolH2C {
		t.Errorf("got %v, want H2C", got.Protocol)
	}
	for _, e := range logs.all() {
		if e.Message == "process is ready" && e.Service == "default/other" {
			t.Error("a process is ready whose gRPC service is not known")
		}
	}
}

func TestTheConfiguredProtocolIsTheEndpoints(t *testing.T) {
	for _, protocol := range []scaling.Protocol{scaling.ProtocolHTTP1, scaling.ProtocolH2C, scaling.ProtocolHTTPS} {
		definition := define("shop", Process{})
		definition.Service.Upstream.Protocol = protocol
		if got := definition.endpoint("id", 1).Protocol; got != protocol {
			t.Errorf("%v: got %v", protocol, got)
		}
	}
	definition := define("shop", Process{})
	definition.Service.Upstream.Protocol = scaling.ProtocolHTTPS
	if check := definition.check(1); check.Scheme != "https" {
		t.Errorf("readiness of an HTTPS process asks by %q, want https", check.Scheme)
	}
}

func TestASuspectedEndpointIsProvenAgain(t *testing.T) {
	control := newControl(t)
	definition := define("shop", control.process("shop", false))
	control.tell("shop", "answer")
	backend, logs := runBackend(t, definition)
	scale(t, backend, definition, 1)
	endpoint := awaitReady(t, backend, definition, 1)[0]
	// It answers: the suspicion was wrong.
	for range 100 {
		backend.Suspect(definition.Service.Key, endpoint.ID)
	}
	logs.await("process refuses connections and is probed again")
	if after := awaitReady(t, backend, definition, 1)[0]; after != endpoint {
		t.Errorf("got %+v, want %+v", after, endpoint)
	}
}
