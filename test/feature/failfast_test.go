package feature

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestACommandThatDoesNotExistIs503AtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, []string{command(t, "shop", []string{"/nowhere/shop"})})
	r := want(t, send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil)), 503)
	p := problemOf(t, r)
	if p["reason"] != "NotFound" {
		t.Errorf("the reason is %v, want NotFound", p["reason"])
	}
	if message, _ := p["message"].(string); !strings.Contains(message, "/nowhere/shop") {
		t.Errorf("a client on loopback is told %q, which does not name the command", message)
	}
	if r.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if got := d.status("shop")["state"]; got != "Failed" {
		t.Errorf("the service is %v, want Failed", got)
	}
	if got := d.counter("dormouse_cold_starts_total", "shop", `outcome="failed"`); got != 1 {
		t.Errorf("%v cold starts count as failed, want 1", got)
	}
}

func TestAProcessThatExitsAtOnceIs503WithItsExitCodeAndLastWords(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", []string{"--name=shop", "--crash-at-start=42"})})
	client := newClient(t)
	var waiting []<-chan reply
	for range 10 {
		waiting = append(waiting, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
	}
	for _, w := range waiting {
		p := problemOf(t, want(t, w, 503))
		if p["reason"] != "CrashLoop" {
			t.Errorf("the reason is %v, want CrashLoop", p["reason"])
		}
		message, _ := p["message"].(string)
		for _, part := range []string{"exit code 42", "cannot open the database: no such host", "giving up"} {
			if !strings.Contains(message, part) {
				t.Errorf("a client on loopback is not told %q but %q", part, message)
			}
		}
	}
}

func TestAProcessThatStartsAtTheThirdAttemptIsWaitedFor(t *testing.T) {
	t.Parallel()
	attempts := filepath.Join(t.TempDir(), "attempts")
	d := start(t, []string{command(t, "shop", []string{
		"sh", "-c",
		`echo >>"$0"; [ "$(wc -l <"$0")" -ge 3 ] && exec "$1"; exit 7`, attempts, apptest.Binary(t),
	})})
	client := newClient(t)
	var held []<-chan reply
	for range 10 {
		held = append(held, send(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)))
	}
	for _, r := range held {
		want(t, r, 200)
	}
}

func TestAProcessThatListensLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "late", []string{"--listen-delay=300ms"}),
		app(t, "unready", []string{"--ready-delay=300ms"}, "readiness: {http: /healthz}"),
		app(t, "grpc", []string{"--protocol=grpc", "--ready-delay=300ms"}, "readiness: {grpc: {}}"),
	})
	client := newClient(t)
	late := send(client, d.request(t.Context(), http.MethodGet, "late", "/", nil))
	unready := send(client, d.request(t.Context(), http.MethodGet, "unready", "/healthz", nil))
	d.tell("grpc", "wake")
	want(t, late, 200)
	want(t, unready, 200) // and not the application's 503
	eventually(t, "the gRPC service is awake", func() bool { return d.status("grpc")["state"] == "Awake" })
	for _, service := range []string{"late", "unready", "grpc"} {
		if seconds, _ := d.status(service)["lastColdStartSeconds"].(float64); service != "grpc" && seconds < 0.3 {
			t.Errorf("%s: the cold start took %v s, and the application 0.3 s", service, seconds)
		}
	}
}

func TestWithoutFailFastAFailureIsWaitedOut(t *testing.T) {
	t.Parallel()
	d := start(t, []string{command(t, "shop", []string{"/nowhere/shop"}, "hold: {failFast: false, timeout: 500ms}")})
	began := time.Now()
	want(t, send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil)), 504)
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("it was answered after %v, before the timeout", took)
	}
}

func TestAFailureIsNotCached(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "shop")
	d := start(t, []string{command(t, "shop", []string{program})})
	client := newClient(t)
	get := func() reply { return sendNow(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)) }
	if r := get(); r.status != 503 {
		t.Fatalf("got %+v, want 503", r)
	}
	// Whoever asks meanwhile is told at once, and does not hang.
	if r := get(); r.status != 503 {
		t.Errorf("got %+v, want 503", r)
	}
	if err := os.Symlink(apptest.Binary(t), program); err != nil {
		t.Fatal(err)
	}
	mended := time.Now()
	eventually(t, "the mended service answers", func() bool { return get().status == 200 })
	if took := time.Since(mended); took > 5*time.Second {
		t.Errorf("the mended service answered after %v; the first back-off is a second", took)
	}
}

func TestAClientOnLoopbackIsToldTheMessage(t *testing.T) {
	t.Parallel()
	d := start(t, []string{command(t, "shop", []string{"/nowhere/shop"})})
	p := problemOf(t, want(t, send(newClient(t), d.request(t.Context(), http.MethodGet, "shop", "/", nil)), 503))
	if message := fmt.Sprint(p["message"]); p["reason"] != "NotFound" || !strings.Contains(message, "/nowhere/shop") {
		t.Errorf("the reason is %v and the message %v", p["reason"], message)
	}
}

func TestGRPCClientsOfAFailedServiceGetUnavailable(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		command(t, "missing", []string{"/nowhere/shop"}, "readiness: {grpc: {}}"),
		app(t, "silent", []string{"--listen-delay=1h"}, "readiness: {grpc: {}}", "hold: {timeout: 300ms}"),
	})
	for service, code := range map[string]codes.Code{
		"missing": codes.Unavailable, "silent": codes.Unavailable, "nobody": codes.Unimplemented,
	} {
		conn, err := grpc.NewClient("passthrough:///"+d.http, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithAuthority(service+".default"), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		client := testpb.NewTestServiceClient(conn)
		_, err = client.EmptyCall(t.Context(), &testpb.Empty{})
		if got := status.Code(err); got != code {
			t.Errorf("%s: a unary call ends with %v, want %v: %v", service, got, code, err)
		}
		if text := status.Convert(err).Message(); text == "" || strings.Contains(text, "nowhere") || strings.Contains(text, "127.0.0.1") ||
			strings.Contains(text, "HTTP") { // that would be grpc-go's own words for an answer that is not gRPC
			t.Errorf("%s: the message is %q", service, text)
		}
		stream, err := client.FullDuplexCall(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		if got := status.Code(err); got != code {
			t.Errorf("%s: a stream ends with %v, want %v: %v", service, got, code, err)
		}
		_ = conn.Close()
	}
}
