//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// asleep deploys an application that is at zero, and says that Dormouse may wake it.
func asleep(t *testing.T, flags ...string) (namespace string) {
	t.Helper()
	namespace = newNamespace(t)
	deployApp(t, namespace, "web", 0, flags...)
	elastic(t, namespace, "web", nil)
	return namespace
}

func TestAColdGETIsAnswered(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	c := toDormouse(t)
	for _, host := range []string{"web." + namespace, "web." + namespace + ".svc", "WEB." + namespace + ".svc.cluster.local.:8080"} {
		cold := ask(t.Context(), c, "http://"+host+"/headers")
		wantOK(t, "a cold GET of "+host, cold)
		if timing := cold.header.Get("Server-Timing"); !strings.Contains(timing, "hold;dur=") {
			t.Errorf("Server-Timing of a request that was held is %q", timing)
		}
		t.Logf("a cold start took %v: %s", cold.took.Round(time.Millisecond), cold.header.Get("Server-Timing"))

		warm := ask(t.Context(), c, "http://"+host+"/headers")
		wantOK(t, "a warm GET of "+host, warm)
		if timing := warm.header.Get("Server-Timing"); strings.Contains(timing, "hold;dur=") {
			t.Errorf("Server-Timing of a request that was not held is %q", timing)
		}
		awaitAsleep(t, namespace, "web")
	}
}

func TestAColdPOSTOf50MBArrivesWhole(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	const size = 50 << 20
	hash := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), hash) // of no known length: in chunks
	r := askWith(t.Context(), toDormouse(t), http.MethodPost, urlOf(namespace, "web", "/upload"), body)
	wantOK(t, "a cold POST", r)
	var got struct {
		Bytes  int64
		Sha256 string
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	if got.Bytes != size || got.Sha256 != hex.EncodeToString(hash.Sum(nil)) {
		t.Errorf("%d bytes arrived, with the sum %s; sent were %d", got.Bytes, got.Sha256, size)
	}
}

func TestColdGRPCCallsAreAnswered(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	deploy(t, namespace, "web", 0, func(d *appsv1.Deployment, s *corev1.Service) {
		s.Spec.Ports[0].AppProtocol = new("kubernetes.io/h2c")
		d.Spec.Template.Spec.Containers[0].ReadinessProbe.ProbeHandler = corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}
	}, "--protocol=grpc")
	elastic(t, namespace, "web", nil)

	conn, err := grpc.NewClient("passthrough:///"+dormouseAddress(t), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("web."+namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var calls sync.WaitGroup
	calls.Go(func() {
		resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 1000})
		if err != nil || len(resp.GetPayload().GetBody()) != 1000 {
			t.Errorf("a unary call: %v, %d bytes", err, len(resp.GetPayload().GetBody()))
		}
	})
	calls.Go(func() {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Errorf("a stream: %v", err)
			return
		}
		for size := range int32(3) {
			_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: size + 1}}}) // Recv tells
			resp, err := stream.Recv()
			if err != nil || len(resp.GetPayload().GetBody()) != int(size)+1 {
				t.Errorf("message %d of a stream: %v, %d bytes", size, err, len(resp.GetPayload().GetBody()))
				return
			}
		}
		_ = stream.CloseSend()
		if _, err := stream.Recv(); err != io.EOF { //nolint:errorlint // it is never wrapped
			t.Errorf("the end of a stream: %v", err)
		}
	})
	calls.Wait()
}

// An open WebSocket is activity: nobody is put to sleep under it.
func TestAColdWebSocketOpensAndKeepsItsServiceAwake(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := toDormouse(t)
	c.Timeout = 0 // the package wants it in the context
	ws, _, err := websocket.Dial(ctx, "ws://web."+namespace+"/ws", &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	echo := func(text string) {
		if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Errorf("send %q: %v", text, err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != text {
			t.Errorf("sent %q, received %q, %v", text, got, err)
		}
	}
	echo("first")
	stays(t, 4*time.Second, "awake, although nothing moves", func() bool { return replicasOf(t, namespace, "web") == 1 })
	echo("second")
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	awaitAsleep(t, namespace, "web")
}

func TestColdServerSentEventsComeOneByOne(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, urlOf(namespace, "web", "/sse?n=5&delay=200ms"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := toDormouse(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var arrived []time.Time
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			arrived = append(arrived, time.Now())
		}
	}
	if err := lines.Err(); err != nil || len(arrived) != 5 {
		t.Fatalf("%d events, %v; want 5", len(arrived), err)
	}
	// The last was sent 800 ms behind the first.
	if spread := arrived[4].Sub(arrived[0]); spread < 400*time.Millisecond {
		t.Errorf("all events came within %v: not each when it was sent", spread)
	}
}

// One write wakes it, however many wait, by however many activators.
func TestAThousandRequestsAtOnceWakeItOnceAndNoneIsLost(t *testing.T) {
	t.Parallel()
	namespace := asleep(t)
	c := toDormouse(t)
	const n = 1000
	replies := make([]reply, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { replies[i] = ask(t.Context(), c, urlOf(namespace, "web", fmt.Sprintf("/headers?%d", i))) })
	}
	all.Wait()
	var slowest time.Duration
	for i, r := range replies {
		wantOK(t, fmt.Sprintf("request %d of %d", i, n), r)
		if t.Failed() {
			t.FailNow() // one is enough to read
		}
		if !strings.Contains(r.body, fmt.Sprintf("/headers?%d\"", i)) {
			t.Fatalf("request %d has the answer of another: %v", i, r)
		}
		slowest = max(slowest, r.took)
	}
	t.Logf("the slowest of %d took %v", n, slowest.Round(time.Millisecond))
	// Each activator may write, but the second to do so changes nothing: the first generation was the test's own.
	d, err := env.client.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || d.Generation != 2 {
		t.Errorf("the Deployment was changed %d times, %v; want once", d.Generation-1, err)
	}
	ups := metric(t, "dormouse_scale_operations_total", namespace, "web", `direction="up"`)
	if activators := len(dormousePods(t.Context(), t)); ups < 1 || int(ups) > activators {
		t.Errorf("%v writes of its scale by %d activators; want one of each at most", ups, activators)
	}
	var count struct{ Requests int }
	if r := ask(t.Context(), c, urlOf(namespace, "web", "/count")); json.Unmarshal([]byte(r.body), &count) != nil || count.Requests != n {
		t.Errorf("the application counts %d requests of %d: %v", count.Requests, n, r)
	}
}
