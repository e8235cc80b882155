//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Activators come and go under load, with requests open at each that take longer than it goes on accepting: a pod is evicted,
// as when its node is drained, and the Deployment is restarted, scaled out and scaled in. Nothing is lost, and services are put
// to sleep and woken all the time. Only what outlives the drain timeout is cut off.
func TestActivatorsComeAndGoUnderLoad(t *testing.T) { //nolint:paralleltest // it disturbs the others
	needFleet(t, 2)
	namespace := newNamespace(t)
	deployApp(t, namespace, "web", 1)
	elastic(t, namespace, "web", idle("1h"))
	pods := awaitFleet(t, 2)
	// The node's rules are up to date: a test before may have kept their writer from the API server.
	clusterAddress(t, namespace, "web", "http")
	c := toDormouse(t)
	naps := startNaps(t, 3, c)
	l := startLoad(t, c, urlOf(namespace, "web", "/"), 4)
	naps.awaitBoth(t, time.Now())
	host := "web." + namespace

	evicted := pods[0]
	env.watch.Excuse(evicted.UID) // says so when its drain timeout is over
	endless := endlessWebSocket(t, evicted, host)
	var evictedAt time.Time
	for _, step := range []struct {
		what   string
		lasts  time.Duration // of what is open meanwhile
		begin  func()
		settle func()
	}{
		{"an activator is evicted", 8 * time.Second, func() {
			evictedAt = time.Now()
			eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: evicted.Namespace, Name: evicted.Name}}
			if err := env.client.PolicyV1().Evictions(evicted.Namespace).Evict(t.Context(), eviction); err != nil {
				t.Fatalf("evict %s: %v", evicted.Name, err)
			}
		}, func() {
			err := <-endless
			after := time.Since(evictedAt)
			t.Logf("what is open for longer than the drain timeout ended after %v: %v", after.Round(time.Millisecond), err)
			if shortest := 5*time.Second + drainTimeout - time.Second; after < shortest || after > shortest+15*time.Second {
				t.Errorf("a WebSocket without end was cut off %v after the eviction; want the shutdown delay and the drain timeout", after)
			}
			awaitFleet(t, 2)
		}},
		{"all are replaced", 14 * time.Second, func() {
			beginRestart(t, env.dormouse.Namespace, env.dormouse.Name)
		}, func() { awaitFleet(t, 2) }},
		{"a third one comes", 3 * time.Second, func() {
			scale(t, env.dormouse.Namespace, env.dormouse.Name, 3)
		}, func() { awaitFleet(t, 3) }},
		{"one goes", 8 * time.Second, func() {
			scale(t, env.dormouse.Namespace, env.dormouse.Name, 2)
		}, func() { awaitFleet(t, 2) }},
	} {
		before := dormousePods(t.Context(), t)
		streams := openStreams(t, before, host, step.lasts)
		began := time.Now()
		step.begin()
		for _, failure := range streams.wait() {
			t.Errorf("%s: %s", step.what, failure)
		}
		sleeps, wakes := naps.slept(began), naps.woken(began)
		step.settle()
		t.Logf("%s: %d streams at %d activators lasted %v; meanwhile %d sleeps and %d wakes", step.what, streams.n, len(before), step.lasts, sleeps, wakes)
		if step.lasts > 5*time.Second && (sleeps == 0 || wakes == 0) {
			t.Errorf("%s: services did not go on sleeping and waking", step.what)
		}
	}
	l.wantNoneLost(t)
	naps.wantNoneLost(t)
}

// endlessWebSocket opens a WebSocket at an activator and sends messages for ever. Its channel gets what it ends with.
func endlessWebSocket(t *testing.T, pod corev1.Pod, host string) <-chan error {
	t.Helper()
	ended, open := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- talk(t.Context(), ownTransport(pod, false), host, time.Hour, func() { close(open) })
	}()
	select {
	case <-open:
	case err := <-ended:
		t.Fatalf("open a WebSocket at %s: %v", pod.Name, err)
	}
	return ended
}

// streams are long requests of all kinds.
type streams struct {
	n    int
	crew sync.WaitGroup

	mu     sync.Mutex // guards failed
	failed []string
}

// openStreams opens a request of each kind at each activator, and returns when all are under way. Each goes on for so long,
// and its client knows what has to come back.
func openStreams(t *testing.T, pods []corev1.Pod, host string, lasts time.Duration) *streams {
	t.Helper()
	kinds := []struct {
		name  string
		h2    bool
		speak func(context.Context, *http.Transport, string, time.Duration, func()) error
	}{
		{"upload", false, upload},
		{"download", false, download},
		{"WebSocket", false, talk},
		{"stream both ways by h2c", true, exchange},
		{"upload by h2c", true, upload},
		{"download by h2c", true, download},
	}
	s := &streams{n: len(pods) * len(kinds)}
	under := make(chan struct{}, s.n)
	ctx, cancel := context.WithTimeout(t.Context(), lasts+patience)
	t.Cleanup(cancel)
	for _, pod := range pods {
		for _, k := range kinds {
			s.crew.Go(func() {
				transport := ownTransport(pod, k.h2)
				defer transport.CloseIdleConnections()
				once := sync.OnceFunc(func() { under <- struct{}{} })
				defer once()
				if err := k.speak(ctx, transport, host, lasts, once); err != nil {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.failed = append(s.failed, fmt.Sprintf("%s at %s: %v", k.name, pod.Name, err))
				}
			})
		}
	}
	for range s.n {
		<-under
	}
	return s
}

// wait waits until all have ended, and returns what went wrong.
func (s *streams) wait() []string {
	s.crew.Wait()
	return s.failed
}

// ownTransport leads to one activator, by a connection that nobody shares.
func ownTransport(pod corev1.Pod, h2 bool) *http.Transport {
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, pod.Status.PodIP+":8080")
	}}
	if h2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	return transport
}

const beat = 100 * time.Millisecond // between two pieces

// beats calls f with a number at each beat, for so long.
func beats(ctx context.Context, lasts time.Duration, f func(i int) error) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for i := range int(lasts / beat) {
		if err := f(i); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// begin sends a request, and wants the application to answer it.
func begin(ctx context.Context, by *http.Transport, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := by.RoundTrip(req)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Header.Get("X-App-Listening") == "") {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		err = errors.Join(fmt.Errorf("status %d: %s", resp.StatusCode, text), resp.Body.Close())
	}
	return resp, err
}

// upload sends a body piece by piece; its sum comes back.
func upload(ctx context.Context, by *http.Transport, host string, lasts time.Duration, open func()) error {
	in, out := io.Pipe()
	hash := sha256.New()
	go func() {
		err := beats(ctx, lasts, func(i int) error {
			piece := bytes.Repeat([]byte{byte(i)}, 10<<10)
			hash.Write(piece)
			_, err := out.Write(piece)
			if i == 1 {
				open()
			}
			return err
		})
		_ = out.CloseWithError(err) // nil: the body's end
	}()
	resp, err := begin(ctx, by, http.MethodPost, "http://"+host+"/upload", in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct{ SHA256 string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	if got.SHA256 != hex.EncodeToString(hash.Sum(nil)) {
		return errors.New("another body arrived than the one that was sent")
	}
	return nil
}

// download reads a body that comes piece by piece.
func download(ctx context.Context, by *http.Transport, host string, lasts time.Duration, open func()) error {
	size := int64(lasts/beat) * 10000
	resp, err := begin(ctx, by, http.MethodGet, fmt.Sprintf("http://%s/bytes?n=%d&chunk=10000&delay=%v", host, size, beat), http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	open()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes of %d", n, size)
	}
	return err
}

// exchange sends messages on a stream, each after the answer to the one before.
func exchange(ctx context.Context, by *http.Transport, host string, lasts time.Duration, open func()) error {
	in, out := io.Pipe()
	defer out.Close()
	resp, err := begin(ctx, by, http.MethodPost, "http://"+host+"/echo", in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	open()
	if err := beats(ctx, lasts, func(i int) error {
		message := fmt.Appendf(nil, "message %5d", i)
		if _, err := out.Write(message); err != nil {
			return err
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, message) {
			return fmt.Errorf("sent %q, got %q: %w", message, got, err)
		}
		return nil
	}); err != nil {
		return err
	}
	_ = out.Close()
	rest, err := io.ReadAll(resp.Body)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("got %q behind the end", rest)
	}
	return err
}

// talk sends messages by a WebSocket, each after the answer to the one before.
func talk(ctx context.Context, by *http.Transport, host string, lasts time.Duration, open func()) error {
	c, _, err := websocket.Dial(ctx, "http://"+host+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: by}})
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }()
	if err := beats(ctx, lasts, func(i int) error {
		if i == 1 {
			open()
		}
		message := strings.Repeat("m", i%100+1)
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return err
		}
		_, got, err := c.Read(ctx)
		if err == nil && string(got) != message {
			err = fmt.Errorf("sent %q, got %q", message, got)
		}
		return err
	}); err != nil {
		return err
	}
	return c.Close(websocket.StatusNormalClosure, "")
}
