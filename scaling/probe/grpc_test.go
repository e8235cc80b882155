package probe

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// serveGRPC returns the address of a server that ends with the test.
func serveGRPC(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	listener := listen(t)
	server := grpc.NewServer()
	register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func TestGRPCAsksForItsService(t *testing.T) {
	states := health.NewServer()
	states.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
	states.SetServingStatus("shop.Search", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	address := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, states) })

	for service, want := range map[string]bool{"": true, "shop.Cart": true, "shop.Search": false, "shop.Unknown": false} {
		err := (&Check{Kind: GRPC, Address: address, Service: service}).Attempt(t.Context())
		if got := err == nil; got != want {
			t.Errorf("service %q: got %v, want success %t", service, err, want)
		}
	}
}

func TestGRPCFailsWhereThereIsNoHealthService(t *testing.T) {
	address := serveGRPC(t, func(*grpc.Server) {})
	if err := (&Check{Kind: GRPC, Address: address}).Attempt(t.Context()); err == nil {
		t.Error("a server without a health service was a success")
	}
}

func TestGRPCFailsAgainstAnHTTP1Server(t *testing.T) {
	if err := (&Check{Kind: GRPC, Address: serveHTTP(t, okHandler)}).Attempt(t.Context()); err == nil {
		t.Error("an HTTP/1.1 server was a success")
	}
}
