package measure

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Start is one start from zero, timed from the first thing that was done: a request sent to Dormouse, or a PATCH of the
// scale by hand.
type Start struct {
	Recorded  time.Duration // to when a watch saw the scale raised; it was recorded before
	Listening time.Duration // to when the application listened, by its own word
	Addressed time.Duration // to when a watch got the pod's address from the API server
	Ready     time.Duration // to when a watch saw the EndpointSlice call it ready; 0 if that was after the answer
	Total     time.Duration // to the first byte of the answer
}

// Added is what lies between the moment from which an answer was possible, the later of the application listening and its
// address being known, and the answer's first byte.
func (s Start) Added() time.Duration { return s.Total - max(s.Listening, s.Addressed) }

// limit is how long one start may take.
const limit = 2 * time.Minute

// Request wakes an application by a request to Dormouse, on a connection that is there already.
func (s *Site) Request(ctx context.Context, o *Observer, app string) (Start, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Release.HTTP)
	if err != nil {
		return Start{}, fmt.Errorf("connect to Dormouse: %w", err)
	}
	defer conn.Close()
	began := time.Now()
	a, err := ask(ctx, conn, app+"."+s.Namespace)
	if err != nil {
		return Start{}, fmt.Errorf("request %s: %w", app, err)
	}
	seen, err := o.addressed(ctx, app)
	if err != nil {
		return Start{}, err
	}
	return since(began, seen, a), nil
}

// ByHand does what a person does who has no Dormouse, without losing time: PATCH the scale, wait for the EndpointSlice to
// say ready, request from the pod.
func (s *Site) ByHand(ctx context.Context, o *Observer, app string) (Start, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if err := s.Scale(ctx, app, 1); err != nil {
		return Start{}, err
	}
	address, seen, err := o.readySince(ctx, app)
	if err != nil {
		return Start{}, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, "8080"))
	if err != nil {
		return Start{}, fmt.Errorf("connect to %s: %w", app, err)
	}
	defer conn.Close()
	a, err := ask(ctx, conn, app)
	if err != nil {
		return Start{}, fmt.Errorf("request %s: %w", app, err)
	}
	return since(began, seen, a), nil
}

// Scale writes a Deployment's scale.
func (s *Site) Scale(ctx context.Context, app string, replicas int32) error {
	_, err := s.Kube.AppsV1().Deployments(s.Namespace).Patch(ctx, app, types.MergePatchType,
		fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{}, "scale")
	if err != nil {
		return fmt.Errorf("scale %s to %d: %w", app, replicas, err)
	}
	return nil
}

func since(began time.Time, seen start, a answer) Start {
	s := Start{Total: a.first.Sub(began), Listening: a.listening.Sub(began)}
	s.Recorded, s.Addressed = seen.raised.Sub(began), seen.addressed.Sub(began)
	if !seen.ready.IsZero() {
		s.Ready = seen.ready.Sub(began)
	}
	return s
}

// answer is when the application said that it began to listen, and when the first byte of its answer came.
type answer struct{ listening, first time.Time }

var errStatus = errors.New("the status is not 200")

// ask sends a request and reads the header of the answer.
func ask(ctx context.Context, c net.Conn, host string) (answer, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		return answer{}, fmt.Errorf("send: %w", err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadSlice('\n')
	a := answer{first: time.Now()}
	if err != nil {
		return a, fmt.Errorf("receive: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		rest, _ := r.Peek(r.Buffered())
		return a, fmt.Errorf("%w: %s%s", errStatus, line, rest)
	}
	for len(bytes.TrimSpace(line)) > 0 {
		if name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(": ")); ok && bytes.EqualFold(name, []byte("X-App-Listening")) {
			nanos, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				return a, fmt.Errorf("read when the application listened: %w", err)
			}
			a.listening = time.Unix(0, nanos)
		}
		if line, err = r.ReadSlice('\n'); err != nil {
			return a, fmt.Errorf("receive: %w", err)
		}
	}
	if a.listening.IsZero() {
		return a, errors.New("receive: the answer has no X-App-Listening")
	}
	return a, nil
}
