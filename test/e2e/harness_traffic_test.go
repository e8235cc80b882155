//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
)

// patience is how long a request may take that is to be answered.
const patience = time.Minute

// dormouseAddress is where Dormouse's HTTP port is reached from here: its Service, or, in a cluster that we have no routes
// to, a port that is forwarded to one of its pods.
func dormouseAddress(t *testing.T) string {
	t.Helper()
	if env.own == nil {
		return forwardPort(t, readyDormouse(t), 8080)
	}
	awaitLed(t, env.dormouse.Service, env.dormouse.HTTP)
	return env.dormouse.HTTP
}

// awaitLed waits until the node's rules for a Service, which follow its slices in their own time, lead somewhere.
func awaitLed(t *testing.T, service, address string) {
	t.Helper()
	eventually(t, "connections to the Service "+service+" are accepted", func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			err = conn.Close()
		}
		return err == nil
	})
}

// clusterAddress is the address of a Service's port, by name, once it leads somewhere.
func clusterAddress(t *testing.T, namespace, name, port string) string {
	t.Helper()
	service, err := env.client.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("find the Service %s: %v", name, err)
	}
	for _, p := range service.Spec.Ports {
		if p.Name == port {
			address := net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(p.Port)))
			awaitLed(t, name, address)
			return address
		}
	}
	t.Fatalf("the Service %s has no port %s: %v", name, port, service.Spec.Ports)
	return ""
}

// dormousePods returns the activators.
func dormousePods(ctx context.Context, t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := env.dormouse.Pods(ctx, env.client)
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// readyDormouse returns an activator that is ready.
func readyDormouse(t *testing.T) corev1.Pod {
	t.Helper()
	pods := dormousePods(t.Context(), t)
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil && ready([]corev1.Pod{pod}) {
			return pod
		}
	}
	t.Fatalf("none of %d activators is ready", len(pods))
	return corev1.Pod{}
}

// forwardPort forwards a port of this machine to one of a pod's until the test ends, as kubectl port-forward does, and
// returns its address.
func forwardPort(t *testing.T, pod corev1.Pod, port int) string {
	t.Helper()
	to := env.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer, err := portforward.NewSPDYOverWebsocketDialer(to, env.rest)
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	var complaints bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	forwarder, err := portforward.NewOnAddressesWithContext(ctx, dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, up, io.Discard, &complaints)
	if err != nil {
		t.Fatal(err)
	}
	var ended error // read when gone is closed
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ended = forwarder.ForwardPorts()
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	select {
	case <-up:
	case <-gone:
		t.Fatalf("forward a port to %s: %v: %s", pod.Name, ended, complaints.String())
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local)))
}

// clientOf returns a client whose connections all lead to one address, whatever a URL's host says: that is only the
// request's Host.
func clientOf(t *testing.T, address string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1000,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// toDormouse returns a client of Dormouse.
func toDormouse(t *testing.T) *http.Client {
	t.Helper()
	return clientOf(t, dormouseAddress(t))
}

// urlOf is a URL of a service by its own name; the client makes it lead to Dormouse.
func urlOf(namespace, name, path string) string { return "http://" + name + "." + namespace + path }

// reply is what became of a request.
type reply struct {
	status    int
	header    http.Header
	body      string
	err       error // also where the body was cut short
	took      time.Duration
	listening string // when the application that answered began to listen, in Unix nanoseconds: which of its pods it was
}

// ask requests a URL and reads the whole answer.
func ask(ctx context.Context, c *http.Client, url string) reply {
	return askWith(ctx, c, http.MethodGet, url, http.NoBody)
}

// askWith is ask with a method and a body.
func askWith(ctx context.Context, c *http.Client, method, url string, body io.Reader) (r reply) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return reply{err: err}
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: string(all), err: err, listening: resp.Header.Get("X-App-Listening")}
}

// asks requests a URL and returns at once.
func asks(t *testing.T, c *http.Client, url string) <-chan reply {
	t.Helper()
	answer := make(chan reply, 1)
	go func() { answer <- ask(t.Context(), c, url) }()
	return answer
}

// wantOK fails the test unless a request was answered by an application's pod.
func wantOK(t *testing.T, what string, r reply) {
	t.Helper()
	if r.err != nil || r.status != http.StatusOK || r.listening == "" {
		t.Errorf("%s: %v; want an answer of the application", what, r)
	}
}

// wantProblem fails the test unless Dormouse answered with this status and, where it is not empty, this word.
func wantProblem(t *testing.T, what string, r reply, status int, reason string) {
	t.Helper()
	var document struct{ Type, Reason string }
	if r.err == nil {
		_ = json.Unmarshal([]byte(r.body), &document)
	}
	if r.err != nil || r.status != status || !strings.HasPrefix(document.Type, "urn:dormouse:problem:") || document.Reason != reason {
		t.Errorf("%s: %v; want Dormouse's %d with the reason %q", what, r, status, reason)
	}
}

// unanswered fails the test if a request has been answered.
func unanswered(t *testing.T, what string, answer <-chan reply) {
	t.Helper()
	select {
	case r := <-answer:
		t.Fatalf("%s: %v; want it held", what, r)
	default:
	}
}

// staysHeld fails the test if a request is answered before d has passed.
func staysHeld(t *testing.T, d time.Duration, answer <-chan reply) {
	t.Helper()
	select {
	case r := <-answer:
		t.Fatalf("not held: %v", r)
	case <-time.After(d):
	}
}

// String tells of a reply in a line.
func (r reply) String() string {
	if r.err != nil {
		return fmt.Sprintf("%v after %v", r.err, r.took.Round(time.Millisecond))
	}
	return fmt.Sprintf("status %d after %v, %.300q", r.status, r.took.Round(time.Millisecond), r.body)
}

// listeningSince is when the application that answered began to listen, by its own machine's clock.
func (r reply) listeningSince(t *testing.T) time.Time {
	t.Helper()
	n, err := strconv.ParseInt(r.listening, 10, 64)
	if err != nil {
		t.Fatalf("%v has no X-App-Listening", r)
	}
	return time.Unix(0, n)
}

// load is requests sent all the time, by several clients, each after its last one's answer.
type load struct {
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex // guards the following
	sent   int
	failed []string
	pods   map[string]int // answers by which pod gave them: when it began to listen
}

// startLoad begins to request a URL: each of n clients every 10 ms. Every fifth request is made on a connection of its
// own.
func startLoad(t *testing.T, c *http.Client, url string, n int) *load {
	t.Helper()
	transport := c.Transport.(*http.Transport).Clone() //nolint:errcheck // clientOf made it
	transport.DisableKeepAlives = true
	fresh := &http.Client{Transport: transport, Timeout: c.Timeout}
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, pods: map[string]int{}}
	for range n {
		l.workers.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for i := 0; ; i++ {
				select {
				case <-pace.C:
				case <-ctx.Done():
					return
				}
				by := c
				if i%5 == 0 {
					by = fresh
				}
				l.note(ask(context.WithoutCancel(ctx), by, url))
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// stop ends the load, waits for its last answers, and returns how many there were.
func (l *load) stop() int {
	l.cancel()
	l.workers.Wait()
	return l.sent
}

// wantNoneLost ends the load and fails the test if a request was lost, or not answered by the application.
func (l *load) wantNoneLost(t *testing.T) {
	t.Helper()
	sent := l.stop()
	if sent == 0 {
		t.Error("no requests were sent: nothing is proven")
	}
	if len(l.failed) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %s", len(l.failed), sent, l.failed[0])
	}
	t.Logf("%d requests, answered by %d pods", sent, len(l.pods))
}

// answered waits until n more requests were answered.
func (l *load) answered(t *testing.T, n int) {
	t.Helper()
	l.mu.Lock()
	until := l.sent + n
	l.mu.Unlock()
	eventually(t, "requests are answered", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.sent >= until
	})
}

// answeredBy is by how many pods requests were answered since forget.
func (l *load) answeredBy() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pods)
}

// forget forgets who has answered.
func (l *load) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.pods)
}

func (l *load) note(r reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	l.pods[r.listening]++
	if r.err != nil || r.status != http.StatusOK || r.listening == "" {
		l.failed = append(l.failed, r.String())
	}
}

// awaitHeld waits until Dormouse holds exactly so many requests for a service.
func awaitHeld(t *testing.T, namespace, name string, want int) {
	t.Helper()
	held := 0.0
	eventually(t, fmt.Sprintf("%d requests for %s are held", want, name), func() bool {
		held = metric(t, "dormouse_held_requests", namespace, name)
		return int(held) == want
	})
}

// metric is the sum of a service's samples of this name whose labels include the given ones (`direction="up"`), over all
// of Dormouse's pods.
func metric(t *testing.T, name, namespace, service string, labels ...string) float64 {
	t.Helper()
	labels = append(labels, fmt.Sprintf("namespace=%q", namespace), fmt.Sprintf("service=%q", service))
	pods := dormousePods(t.Context(), t)
	sum := 0.0
	for i := range pods {
		text, err := env.client.CoreV1().Pods(pods[i].Namespace).ProxyGet("http", pods[i].Name, "9090", "metrics", nil).DoRaw(t.Context())
		if err != nil {
			continue // it begins or ends just now
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if v, ok := sample(lines.Text(), name, labels); ok {
				sum += v
			}
		}
	}
	return sum
}

// sample reads a line of Prometheus' text format, if it is one of this name and these labels.
func sample(line, name string, labels []string) (float64, bool) {
	rest, ok := strings.CutPrefix(line, name+"{")
	end := strings.LastIndex(rest, "} ")
	if !ok || end < 0 {
		return 0, false
	}
	for _, label := range labels {
		if !strings.Contains(","+rest[:end]+",", ","+label+",") {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(strings.Fields(rest[end+2:])[0], 64)
	return v, err == nil
}

// eventually waits for what no watch tells of.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// stays fails the test if a condition ends to hold before d has passed.
func stays(t *testing.T, d time.Duration, what string, condition func() bool) {
	t.Helper()
	end := time.After(d)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if !condition() {
			t.Fatalf("it did not stay so for %v: %s", d, what)
		}
		select {
		case <-ticker.C:
		case <-end:
			return
		}
	}
}

// describeDormouse logs what Dormouse wrote about a failed test's namespace.
func describeDormouse(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	for _, pod := range dormousePods(ctx, t) {
		text, err := env.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			t.Logf("no logs of %s to show: %v", pod.Name, err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, namespace) {
				t.Logf("%s: %s", pod.Name, strings.TrimSpace(line))
			}
		}
	}
}

// escaped is a text as a query has it.
func escaped(text string) string { return url.QueryEscape(text) }
