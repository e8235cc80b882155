package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// newGRPC makes the gRPC server with its services, not healthy yet. With --protocol=grpc it names itself and delays, as ServeHTTP does otherwise.
func newGRPC(cfg config) (*grpc.Server, *health.Server) {
	var options []grpc.ServerOption
	if cfg.protocol == "grpc" {
		begin := func(ctx context.Context) error {
			if !wait(ctx, cfg.headerDelay) {
				return status.FromContextError(ctx.Err()).Err()
			}
			return grpc.SetHeader(ctx, metadata.Pairs("x-app-name", cfg.name))
		}
		options = []grpc.ServerOption{
			grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				if err := begin(ctx); err != nil {
					return nil, err
				}
				return handle(ctx, req)
			}),
			grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
				if err := begin(stream.Context()); err != nil {
					return err
				}
				return handle(srv, stream)
			}),
		}
	}
	srv := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(srv, testService{})
	checks := health.NewServer()
	checks.SetServingStatus(testpb.TestService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	checks.Shutdown() // until Resume
	healthpb.RegisterHealthServer(srv, checks)
	return srv, checks
}

// testService is grpc.testing.TestService as gRPC's interoperability test descriptions say (grpc/grpc, doc/interop-test-descriptions.md). It is
// not grpc-go's own implementation, whose package needs OAuth and xDS to build.
type testService struct {
	testpb.UnimplementedTestServiceServer
}

// EmptyCall answers with nothing.
func (testService) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, echoMetadata(ctx)
}

// UnaryCall answers with as many zeros as asked for, or with the status asked for.
func (testService) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := echoMetadata(ctx); err != nil {
		return nil, err
	}
	if err := asked(in.GetResponseStatus()); err != nil {
		return nil, err
	}
	body, err := payload(in.GetResponseSize())
	return &testpb.SimpleResponse{Payload: body}, err
}

// StreamingInputCall adds up the sizes of the payloads.
func (testService) StreamingInputCall(stream grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	if err := echoMetadata(stream.Context()); err != nil {
		return err
	}
	var sum int32
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		sum += int32(len(in.GetPayload().GetBody()))
	}
}

// StreamingOutputCall sends a message for each of the request's parameters.
func (testService) StreamingOutputCall(
	in *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse],
) error {
	if err := echoMetadata(stream.Context()); err != nil {
		return err
	}
	if err := asked(in.GetResponseStatus()); err != nil {
		return err
	}
	return respond(stream.Context(), in, stream.Send)
}

// FullDuplexCall answers each request as StreamingOutputCall does, at once.
func (testService) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if err := echoMetadata(stream.Context()); err != nil {
		return err
	}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := asked(in.GetResponseStatus()); err != nil {
			return err
		}
		if err := respond(stream.Context(), in, stream.Send); err != nil {
			return err
		}
	}
}

// respond sends the messages that in asks for, each after its interval.
func respond(ctx context.Context, in *testpb.StreamingOutputCallRequest, send func(*testpb.StreamingOutputCallResponse) error) error {
	for _, p := range in.GetResponseParameters() {
		if !wait(ctx, time.Duration(p.GetIntervalUs())*time.Microsecond) {
			return status.FromContextError(ctx.Err()).Err()
		}
		body, err := payload(p.GetSize())
		if err != nil {
			return err
		}
		if err := send(&testpb.StreamingOutputCallResponse{Payload: body}); err != nil {
			return err
		}
	}
	return nil
}

// echoMetadata returns the two keys that clients may set, one as header and one as trailer.
func echoMetadata(ctx context.Context) error {
	const header, trailer = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get(header); len(values) > 0 {
		if err := grpc.SetHeader(ctx, metadata.MD{header: values}); err != nil {
			return err
		}
	}
	if values := md.Get(trailer); len(values) > 0 {
		return grpc.SetTrailer(ctx, metadata.MD{trailer: values})
	}
	return nil
}

// asked is the status that a request wants for an answer, or nil.
func asked(want *testpb.EchoStatus) error {
	return status.Error(codes.Code(want.GetCode()), want.GetMessage()) // nil for OK
}

// payload is size zeros.
func payload(size int32) (*testpb.Payload, error) {
	if size < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "payload of %d bytes", size)
	}
	return &testpb.Payload{Body: make([]byte, size)}, nil
}
