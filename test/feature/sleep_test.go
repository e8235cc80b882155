package feature

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

func TestAServiceSleepsWhenItIsIdle(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "idle: {after: 300ms}")})
	events := d.follow()
	began := time.Now()
	pid := d.pid("shop")
	events.await("shop", "Awake")
	events.await("shop", "Draining")
	events.await("shop", "Asleep")
	if idle := time.Since(began); idle < 300*time.Millisecond {
		t.Errorf("it was put to sleep %v after its last request began", idle)
	}
	awaitGone(t, pid)
	if got := d.pid("shop"); got == pid {
		t.Errorf("process %d answered after its end", got)
	}
	if got := d.counter("dormouse_scale_operations_total", "shop", `direction="down"`, `outcome="ok"`); got != 1 {
		t.Errorf("%v scales down are counted, want 1", got)
	}
}

// Each of these services would have been put to sleep several times over before the clock, a service with a longer time,
// is.
func TestAServiceDoesNotSleepWhileItIsUsed(t *testing.T) {
	t.Parallel()
	const idle = "idle: {after: 100ms}"
	held, gate := gated(t, "held", nil, idle)
	d := start(t, []string{
		held, app(t, "flight", nil, idle), app(t, "upload", nil, idle), app(t, "events", nil, idle), app(t, "websocket", nil, idle),
		app(t, "grpc", []string{"--protocol=grpc"}, idle, "readiness: {grpc: {}}"),
		app(t, "clock", nil, "idle: {after: 500ms}"),
	})
	states := d.follow()
	client := newClient(t)
	client.Timeout = 0

	waiting := send(client, d.request(t.Context(), http.MethodGet, "held", "/", nil))

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	send(client, d.request(ctx, http.MethodGet, "flight", "/stall", nil))
	uploading, upload := io.Pipe()
	uploaded := send(client, d.request(t.Context(), http.MethodPost, "upload", "/upload", uploading))
	fmt.Fprint(upload, "begun")

	resp, err := client.Do(d.request(ctx, http.MethodGet, "events", "/sse?n=0&delay=1h", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if first, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatalf("the first event is %q: %v", first, err)
	}

	ws, _, err := websocket.Dial(t.Context(), "ws://"+d.http+"/ws", &websocket.DialOptions{Host: "websocket.default"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()

	conn, err := grpc.NewClient("passthrough:///"+d.http, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("grpc.default"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.awaitHeld("held", 1)
	used := []string{"flight", "upload", "events", "websocket", "grpc"}
	for _, service := range used {
		d.awaitInFlight(service, 1)
	}

	since := make(map[string]any)
	for _, service := range append(used, "held") {
		since[service] = d.status(service)["since"]
	}
	d.get("clock", "/")
	states.await("clock", "Asleep")
	for _, service := range append(used, "held") {
		state := "Awake"
		if service == "held" {
			state = "Waking"
		}
		if s := d.status(service); s["state"] != state || s["since"] != since[service] {
			t.Errorf("the service of %s is %v since %v, want %s since %v", service, s["state"], s["since"], state, since[service])
		}
	}
	gate.open()
	want(t, waiting, 200)
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
		t.Error(err)
	}
	if _, got, err := ws.Read(t.Context()); string(got) != "still here" {
		t.Errorf("the WebSocket said %q: %v", got, err)
	}
	one := &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1}}}
	if err := stream.Send(one); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("the gRPC stream broke off: %v", err)
	}
	_ = upload.Close()
	want(t, uploaded, 200)

	// And once they are not, they do.
	leave()
	_ = ws.Close(websocket.StatusNormalClosure, "")
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the gRPC stream ended with %v", err)
	}
	for _, service := range append(used, "held") {
		eventually(t, service+" sleeps", func() bool { return d.status(service)["state"] == "Asleep" })
	}
	for _, service := range append(used, "held") {
		if got := startsOf(d, service); got != 1 {
			t.Errorf("%s was started %d times, want once", service, got)
		}
	}
}

func TestAServiceThatHasHadNoTrafficIsNotPutToSleep(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "fresh", nil, "idle: {after: 100ms}"),
		app(t, "initial", nil, "idle: {after: 100ms, initial: true}"),
		app(t, "clock", nil, "idle: {after: 500ms}"),
	})
	events := d.follow()
	d.tell("fresh", "wake")
	d.tell("initial", "wake")
	events.await("initial", "Asleep")
	d.get("clock", "/")
	events.await("clock", "Asleep")
	if s := d.status("fresh"); s["state"] != "Awake" || fmt.Sprint(s["noTrafficYet"]) != "true" {
		t.Errorf("it is %v, noTrafficYet %v", s["state"], s["noTrafficYet"])
	}
	d.get("fresh", "/")
	eventually(t, "it sleeps", func() bool { return d.status("fresh")["state"] == "Asleep" })
}

// Requests that come while it is decided to sleep, or just after, are held and wake it again.
func TestNoRequestIsLostToASleep(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "idle: {after: 1ms}")})
	client, other := newClient(t), newClient(t)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for { // beside its own short idle time
			select {
			case <-stop:
				return
			default:
			}
			if r := sendNow(other, d.controlRequest(http.MethodPost, "/api/v1/services/default/shop/sleep")); r.err != nil {
				t.Error(r.err)
				return
			}
		}
	}()
	defer func() {
		close(stop)
		<-ended
	}()
	asked := 0
	eventually(t, "it has slept several times", func() bool {
		for range 20 {
			if r := sendNow(client, d.request(t.Context(), http.MethodGet, "shop", "/", nil)); r.err != nil || r.status != 200 {
				t.Fatalf("request %d got %+v", asked, r)
			}
			asked++
		}
		return startsOf(d, "shop") > 3
	})
}

func TestAProcessThatIgnoresTheSignalIsKilledAfterItsGrace(t *testing.T) {
	t.Parallel()
	d := start(t, []string{withProcess(app(t, "shop", []string{"--ignore-sigterm"}), "stopGrace: 300ms")})
	pid := d.pid("shop")
	began := time.Now()
	d.tell("shop", "sleep")
	awaitGone(t, pid)
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("it was killed after %v, before its grace was over", took)
	}
	eventually(t, "the log says that it was killed", func() bool {
		return strings.Count(d.log.String(), `"process did not stop in time and is killed"`) == 1
	})
}

func TestASleepingServiceKeepsItsMinimum(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "shop", nil, "replicas: {min: 1, wake: 2}", "idle: {after: 1s}")})
	eventually(t, "the minimum is ready before any request", func() bool { return d.status("shop")["readyEndpoints"] == 1.0 })
	for range 2 {
		if resp, _ := d.get("shop", "/"); resp.StatusCode != 200 || resp.Header.Get("Server-Timing") != "" {
			t.Errorf("got %s after a hold %q, want 200 at once", resp.Status, resp.Header.Get("Server-Timing"))
		}
		eventually(t, "it was woken to two", func() bool { return d.status("shop")["readyEndpoints"] == 2.0 })
		eventually(t, "it is back at one", func() bool {
			s := d.status("shop")
			return s["state"] == "Asleep" && s["replicas"] == 1.0 && s["readyEndpoints"] == 1.0
		})
		eventually(t, "the one that is left answers without a hold", func() bool {
			resp, _ := d.get("shop", "/")
			return resp.StatusCode == 200 && resp.Header.Get("Server-Timing") == ""
		})
	}
}

// startsOf is how many processes of a service were started.
func startsOf(d *dormouse, service string) int {
	n := 0
	for line := range strings.SplitSeq(d.log.String(), "\n") {
		if strings.Contains(line, `"process started"`) && strings.Contains(line, fmt.Sprintf(`"default/%s"`, service)) {
			n++
		}
	}
	return n
}
