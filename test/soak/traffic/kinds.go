package traffic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/coder/websocket"
)

// Kind is a way to make a request.
type Kind string

// The kinds of requests.
const (
	Get       Kind = "GET, connection kept"
	GetOnce   Kind = "GET, a connection each"
	Upload    Kind = "upload"
	Download  Kind = "download"
	Slow      Kind = "slow download"
	H2Get     Kind = "GET, h2c"
	H2Upload  Kind = "upload, h2c"
	H2Stream  Kind = "stream both ways, h2c"
	WebSocket Kind = "WebSocket"
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{Get, GetOnce, Upload, Download, Slow, H2Get, H2Upload, H2Stream, WebSocket}
}

// AnyKind returns one at random, short requests more often than long ones.
func AnyKind() Kind {
	kinds := Kinds()
	if n := rand.IntN(2 * len(kinds)); n < len(kinds) {
		return kinds[n]
	}
	return []Kind{Get, GetOnce, H2Get}[rand.IntN(3)]
}

// ask makes a request and returns why its answer is not what it should be.
func ask(ctx context.Context, q *Request) error {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { q.Local = i.Conn.LocalAddr() }})
	switch q.Kind {
	case Get:
		return download(ctx, q, q.Front.kept, 1+int(q.ID%5000), "")
	case GetOnce:
		return download(ctx, q, q.Front.single, 1+int(q.ID%5000), "")
	case H2Get:
		return download(ctx, q, q.Front.streams, 1+int(q.ID%5000), "")
	case Download:
		return download(ctx, q, q.Front.kept, 1<<20+int(q.ID%5000), "")
	case Slow:
		return download(ctx, q, q.Front.kept, 50_000+int(q.ID%5000), "&chunk=10k&delay=50ms")
	case Upload:
		return upload(ctx, q, q.Front.kept)
	case H2Upload:
		return upload(ctx, q, q.Front.streams)
	case H2Stream:
		return stream(ctx, q, q.Front.streams)
	case WebSocket:
		return webSocket(ctx, q)
	default:
		return fmt.Errorf("%q is no kind", q.Kind)
	}
}

// do sends a request and returns its answer, if the service's application gave it.
func do(ctx context.Context, q *Request, by http.RoundTripper, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+q.Service+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := by.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	q.Timing = resp.Header.Get("Server-Timing")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-App-Name") != q.Service {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return nil, fmt.Errorf("status %d of %q: %s", resp.StatusCode, resp.Header.Get("X-App-Name"), text)
	}
	return resp, nil
}

// download asks for n bytes, which are as many as only few other requests ask for.
func download(ctx context.Context, q *Request, by http.RoundTripper, n int, how string) error {
	resp, err := do(ctx, q, by, http.MethodGet, fmt.Sprintf("/bytes?n=%d%s", n, how), http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	if err == nil && got != int64(n) {
		err = fmt.Errorf("got %d bytes instead of %d", got, n)
	}
	return err
}

// upload sends up to 256 KiB that begin with the request's number, and compares the sum that the application has found.
func upload(ctx context.Context, q *Request, by http.RoundTripper) error {
	body := append(fmt.Appendf(nil, "%d ", q.ID), bytes.Repeat([]byte("x"), rand.IntN(256<<10))...)
	// Hidden from net/http, which would send a body of bytes again on another connection.
	resp, err := do(ctx, q, by, http.MethodPost, "/upload", struct{ io.Reader }{bytes.NewReader(body)})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct{ SHA256 string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if sum := sha256.Sum256(body); err == nil && got.SHA256 != hex.EncodeToString(sum[:]) {
		err = fmt.Errorf("another body arrived than the one of %d bytes that was sent", len(body))
	}
	return err
}

// stream sends messages and waits for each to come back, as a gRPC call of both kinds of streams does.
func stream(ctx context.Context, q *Request, by http.RoundTripper) error {
	in, out := io.Pipe()
	defer out.Close()
	resp, err := do(ctx, q, by, http.MethodPost, "/echo", in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for i := range 5 {
		message := fmt.Appendf(nil, "message %d of request %d", i, q.ID)
		if _, err := out.Write(message); err != nil {
			return err
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(resp.Body, got); err != nil {
			return fmt.Errorf("read message %d: %w", i, err)
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("got %q instead of %q", got, message)
		}
		pause(ctx, 30*time.Millisecond)
	}
	if err := out.Close(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		return fmt.Errorf("behind the last message: %q, %w", rest, err)
	}
	return nil
}

// webSocket sends messages and waits for each to come back.
func webSocket(ctx context.Context, q *Request) error {
	c, resp, err := websocket.Dial(ctx, "http://"+q.Service+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: q.Front.single}})
	if err != nil {
		if resp != nil && resp.Body != nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
	defer func() { _ = c.CloseNow() }()
	for i := range 5 {
		message := fmt.Appendf(nil, "message %d of request %d", i, q.ID)
		if err := c.Write(ctx, websocket.MessageText, message); err != nil {
			return err
		}
		_, got, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("read message %d: %w", i, err)
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("got %q instead of %q", got, message)
		}
		pause(ctx, 30*time.Millisecond)
	}
	// The library waits five seconds for the other side's part, which an activator that the test has stopped outlasts.
	if err := c.Close(websocket.StatusNormalClosure, ""); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
