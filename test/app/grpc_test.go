package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

// overGRPC runs a test against net/http's transport and grpc-go's own.
func overGRPC(t *testing.T, test func(t *testing.T, cc *grpc.ClientConn), args ...string) {
	for _, protocol := range []string{"auto", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			app := apptest.Start(t, append(args, "--protocol="+protocol)...)
			cc, err := grpc.NewClient("passthrough:///"+app.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cc.Close() })
			test(t, cc)
		})
	}
}

// sized is a request for one message of n bytes that carries n itself.
func sized(n int) *testpb.StreamingOutputCallRequest {
	return &testpb.StreamingOutputCallRequest{
		Payload:            &testpb.Payload{Body: make([]byte, n)},
		ResponseParameters: []*testpb.ResponseParameters{{Size: int32(n)}},
	}
}

func TestGRPCUnary(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		for _, n := range []int32{0, 1, 3 << 20} {
			resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{
				ResponseSize: n, Payload: &testpb.Payload{Body: make([]byte, n)},
			})
			if err != nil || len(resp.GetPayload().GetBody()) != int(n) {
				t.Errorf("%d bytes: %d, %v", n, len(resp.GetPayload().GetBody()), err)
			}
		}
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: -1})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("-1 bytes: %v", err)
		}
	})
}

func TestGRPCClientStream(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		stream, err := testpb.NewTestServiceClient(cc).StreamingInputCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 100_000)}}); err != nil {
				t.Fatal(err)
			}
		}
		if resp, err := stream.CloseAndRecv(); err != nil || resp.GetAggregatedPayloadSize() != 1_000_000 {
			t.Errorf("%v, %v", resp, err)
		}
	})
}

func TestGRPCServerStreamSendsEachMessageAtOnce(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		stream, err := testpb.NewTestServiceClient(cc).StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: 1}, {Size: 100_000}, {Size: 1, IntervalUs: int32(time.Minute / time.Microsecond)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 100_000} {
			if resp, err := stream.Recv(); err != nil || len(resp.GetPayload().GetBody()) != n {
				t.Errorf("%d bytes: %d, %v", n, len(resp.GetPayload().GetBody()), err)
			}
		}
	})
}

func TestGRPCBothStreams(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{27182, 8, 1828, 45904, 0} {
			if err := stream.Send(sized(n)); err != nil {
				t.Fatal(err)
			}
			if resp, err := stream.Recv(); err != nil || len(resp.GetPayload().GetBody()) != n {
				t.Fatalf("%d bytes: %d, %v", n, len(resp.GetPayload().GetBody()), err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestGRPCAnswersWithTheStatusAskedFor(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		want := &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: "ünï\t☺"}
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseStatus: want})
		if got := status.Convert(err); got.Code() != codes.DataLoss || got.Message() != want.GetMessage() {
			t.Errorf("unary: %v", err)
		}
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: want}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Convert(err).Message() != want.GetMessage() {
			t.Errorf("stream: %v", err)
		}
		if _, err := testpb.NewTestServiceClient(cc).UnimplementedCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("unimplemented: %v", err)
		}
	})
}

func TestGRPCReturnsMetadataAndNamesTheApp(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		var header, trailer metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-grpc-test-echo-initial", "one", "x-grpc-test-echo-trailing-bin", "\x00\xff")
		_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		for want, got := range map[string][]string{
			"one": header.Get("x-grpc-test-echo-initial"), "\x00\xff": trailer.Get("x-grpc-test-echo-trailing-bin"), "shop": header.Get("x-app-name"),
		} {
			if len(got) != 1 || got[0] != want {
				t.Errorf("%q came back as %q", want, got)
			}
		}
	}, "--name=shop")
}

func TestGRPCHealthFollowsReadiness(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		stream, err := healthpb.NewHealthClient(cc).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
			healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING,
		} {
			if got, err := stream.Recv(); err != nil || got.GetStatus() != want {
				t.Fatalf("%v, %v instead of %v", got, err, want)
			}
		}
		service := testpb.TestService_ServiceDesc.ServiceName
		got, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: %v, %v", service, got, err)
		}
	}, "--ready-delay=1s")
}

func TestGRPCHeaderDelayHoldsCallsBack(t *testing.T) {
	overGRPC(t, func(t *testing.T, cc *grpc.ClientConn) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("unary: %v", err)
		}
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("stream: %v", err)
		}
	}, "--header-delay=1h")
}
