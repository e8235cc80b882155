package feature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// dialGRPC returns a connection to the proxy for a service.
func dialGRPC(t testing.TB, address, service string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(service+".default"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// grpcApp is test/app as a plain gRPC server, woken when its health service says so.
func grpcApp(t testing.TB, name string, args ...string) string {
	t.Helper()
	return app(t, name, append(args, "--protocol=grpc"), "readiness: {grpc: {}}")
}

func TestGRPCCallsOfAllFourKindsSurviveAColdStart(t *testing.T) {
	t.Parallel()
	shop, gate := gated(t, "shop", []string{"--protocol=grpc"}, "readiness: {grpc: {}}")
	d := start(t, []string{shop})
	client := testpb.NewTestServiceClient(dialGRPC(t, d.http, "shop"))
	calls := map[string]func(context.Context) error{
		"unary": func(ctx context.Context) error {
			resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 1000})
			return sized(err, len(resp.GetPayload().GetBody()), 1000)
		},
		"client streaming": func(ctx context.Context) error {
			stream, err := client.StreamingInputCall(ctx)
			if err != nil {
				return err
			}
			for range 3 {
				if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 10_000)}}); err != nil {
					return err
				}
			}
			resp, err := stream.CloseAndRecv()
			return sized(err, int(resp.GetAggregatedPayloadSize()), 30_000)
		},
		"server streaming": func(ctx context.Context) error {
			stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{ResponseParameters: sizes(1, 20_000, 3)})
			if err != nil {
				return err
			}
			total := 0
			for {
				resp, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return sized(nil, total, 20_004)
				}
				if err != nil {
					return err
				}
				total += len(resp.GetPayload().GetBody())
			}
		},
		"both ways": func(ctx context.Context) error {
			stream, err := client.FullDuplexCall(ctx)
			if err != nil {
				return err
			}
			for i := range int32(3) {
				if err := stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: sizes(i + 1)}); err != nil {
					return err
				}
				resp, err := stream.Recv() // each answer comes before the next question
				if err := sized(err, len(resp.GetPayload().GetBody()), int(i)+1); err != nil {
					return err
				}
			}
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("end of the stream: %w", err)
			}
			return nil
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var done sync.WaitGroup
	for what, call := range calls {
		done.Go(func() {
			if err := call(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	d.awaitHeld("shop", len(calls))
	gate.open()
	done.Wait()
}

func sizes(sizes ...int32) (p []*testpb.ResponseParameters) {
	for _, size := range sizes {
		p = append(p, &testpb.ResponseParameters{Size: size})
	}
	return p
}

func sized(err error, got, want int) error {
	if err == nil && got != want {
		err = fmt.Errorf("%d bytes, want %d", got, want)
	}
	return err
}

// TestGRPCInteroperates runs the client's side of gRPC's interoperability tests. Each calls os.Exit when it fails, so they
// run in another process, which is this test once more.
func TestGRPCInteroperates(t *testing.T) {
	if address := os.Getenv("FEATURE_INTEROP"); address != "" {
		interoperate(t, address)
		os.Exit(0) // TestMain has nothing to do here
	}
	t.Parallel()
	d := start(t, []string{grpcApp(t, "plain", "--listen-delay=100ms"), app(t, "nethttp", nil, "endpoint: {protocol: H2C}")})
	for _, service := range []string{"plain", "nethttp"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGRPCInteroperates$", "-test.v") //nolint:gosec // this test
		cmd.Env = append(os.Environ(), "FEATURE_INTEROP="+d.http, "FEATURE_SERVICE="+service)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all cases passed") {
			t.Errorf("%s: %v\n%s", service, err, out)
		}
	}
}

func interoperate(t *testing.T, address string) {
	conn := dialGRPC(t, address, os.Getenv("FEATURE_SERVICE"))
	client := testpb.NewTestServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []struct {
		name string
		run  func(context.Context, testpb.TestServiceClient, ...grpc.CallOption)
	}{
		{"empty_unary", interop.DoEmptyUnaryCall},
		{"large_unary", interop.DoLargeUnaryCall},
		{"client_streaming", interop.DoClientStreaming},
		{"server_streaming", interop.DoServerStreaming},
		{"ping_pong", interop.DoPingPong},
		{"empty_stream", interop.DoEmptyStream},
		{"timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer},
		{"cancel_after_begin", interop.DoCancelAfterBegin},
		{"cancel_after_first_response", interop.DoCancelAfterFirstResponse},
		{"custom_metadata", interop.DoCustomMetadata},
		{"status_code_and_message", interop.DoStatusCodeAndMessage},
		{"special_status_message", interop.DoSpecialStatusMessage},
		{"unimplemented_service", func(ctx context.Context, _ testpb.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(conn))
		}},
		{"unimplemented_method", func(ctx context.Context, _ testpb.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedMethod(ctx, conn)
		}},
	} {
		t.Log(c.name)
		c.run(ctx, client)
	}
	t.Log("all cases passed")
}

func TestGRPCErrorsAreStatuses(t *testing.T) {
	t.Parallel()
	d := start(t, []string{command(t, "broken", []string{"no-such-command"})})
	for service, want := range map[string]codes.Code{"no-such": codes.Unimplemented, "broken": codes.Unavailable} {
		t.Run(service, func(t *testing.T) {
			d := d.in(t)
			client := testpb.NewTestServiceClient(dialGRPC(t, d.http, service))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := client.EmptyCall(ctx, new(testpb.Empty))
			if got := status.Code(err); got != want {
				t.Errorf("%v, want %v", err, want)
			}

			// In the form that is called trailers-only.
			f := d.frames()
			f.ask(1, false, ":method", "POST", ":scheme", "http", ":authority", service+".default", ":path", "/grpc.testing.TestService/EmptyCall",
				"content-type", "application/grpc+proto", "te", "trailers")
			header, end := f.answer(1)
			if !end || header[":status"] != "200" || header["grpc-status"] != fmt.Sprint(int(want)) || header["content-type"] != "application/grpc+proto" {
				t.Errorf("end of stream: %t, %v", end, header)
			}
			if strings.Contains(fmt.Sprint(header), "127.0.0.1") {
				t.Errorf("an address is in %v", header)
			}
		})
	}
}

// endless is a gRPC service that tells of its calls and answers none.
type endless struct {
	testpb.UnimplementedTestServiceServer
	called chan context.Context
}

func (e *endless) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	e.called <- ctx
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

func TestGRPCDeadlineAndCancellationReachTheServer(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop", "endpoint: {protocol: H2C}")})
	service := &endless{called: make(chan context.Context, 1)}
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, service)
	l := d.listen("shop")
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	client := testpb.NewTestServiceClient(dialGRPC(t, d.http, "shop"))

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := client.EmptyCall(ctx, new(testpb.Empty))
		ended <- err
	}()
	atServer := receive(t, "the call", service.called)
	deadline, ok := atServer.Deadline()
	want, _ := ctx.Deadline()
	if !ok || deadline.Sub(want).Abs() > patience/2 {
		t.Errorf("deadline at the server is %v, want about %v", deadline, want)
	}
	if atServer.Err() != nil {
		t.Fatalf("call has ended already: %v", atServer.Err())
	}
	cancel()
	receive(t, "the end of the call's context at the server", atServer.Done())
	if err := receive(t, "the end of the call", ended); status.Code(err) != codes.Canceled {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

func TestGRPCDeadlineEndsAHold(t *testing.T) {
	t.Parallel()
	shop, _ := gated(t, "shop", nil, "endpoint: {protocol: H2C}")
	d := start(t, []string{shop})
	client := testpb.NewTestServiceClient(dialGRPC(t, d.http, "shop"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := client.EmptyCall(ctx, new(testpb.Empty))
	if status.Code(err) != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that its deadline has passed", err)
	}
	d.awaitHeld("shop", 0)
}
