package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

// result is what became of one request.
type result struct {
	service int
	took    time.Duration
	held    bool // the answer says so
	err     error
}

// asker sends one request to a service through the activator, and checks the answer.
type asker func(ctx context.Context, activator, service string) (held bool, err error)

// fire sends all requests at once, each on a connection of its own.
func fire(ctx context.Context, activator string) <-chan result {
	results := make(chan result, requests)
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			which := i % len(services)
			s := services[which]
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			began := time.Now()
			held, err := s.ask(ctx, activator, s.name)
			results <- result{which, time.Since(began), held, err}
		})
	}
	go func() {
		all.Wait()
		close(results)
	}()
	return results
}

func host(service string) string { return service + ".localhost" }

func askHTTP(path string) asker {
	return func(ctx context.Context, activator, service string) (bool, error) {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+activator+path, nil)
		if err != nil {
			return false, fmt.Errorf("make a request: %w", err)
		}
		r.Host = host(service)
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return false, fmt.Errorf("ask: %w", err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return false, fmt.Errorf("read the answer: %w", err)
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("X-App-Name") != service {
			return false, fmt.Errorf("answered %s by %q", resp.Status, resp.Header.Get("X-App-Name"))
		}
		return wasHeld(resp.Header), nil
	}
}

func askGRPC(ctx context.Context, activator, service string) (bool, error) {
	c, err := grpc.NewClient(activator, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host(service)))
	if err != nil {
		return false, fmt.Errorf("make a gRPC client: %w", err)
	}
	defer c.Close()
	var header metadata.MD
	payload := []byte("dormouse")
	answer, err := grpc_testing.NewTestServiceClient(c).UnaryCall(ctx, &grpc_testing.SimpleRequest{
		ResponseSize: int32(len(payload)), Payload: &grpc_testing.Payload{Body: payload},
	}, grpc.Header(&header))
	if err != nil {
		return false, fmt.Errorf("call: %w", err)
	}
	if n := len(answer.GetPayload().GetBody()); n != len(payload) {
		return false, fmt.Errorf("answered %d bytes, not %d", n, len(payload))
	}
	return wasHeld(http.Header{"Server-Timing": header.Get("server-timing")}), nil
}

func askWebSocket(ctx context.Context, activator, service string) (bool, error) {
	c, resp, err := websocket.Dial(ctx, "ws://"+activator+"/ws", &websocket.DialOptions{Host: host(service)})
	if err != nil {
		return false, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	_, echo, err := c.Read(ctx)
	if err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	if string(echo) != "hello" {
		return false, fmt.Errorf("echoed %q", echo)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		return false, fmt.Errorf("close: %w", err)
	}
	return wasHeld(resp.Header), nil
}

func wasHeld(h http.Header) bool {
	return strings.Contains(strings.Join(h.Values("Server-Timing"), ","), "hold;dur=")
}

func get(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := (&http.Client{}).Do(r)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
