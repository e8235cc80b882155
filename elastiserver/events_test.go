package elastiserver

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

// event is one server-sent event, or a comment.
type event struct {
	id, kind, data string
	comment        string
}

// nextEvent reads one event or comment from a stream.
func nextEvent(t *testing.T, stream *bufio.Reader) event {
	t.Helper()
	var e event
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream broke off: %v after %+v", err, e)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case line == "\n":
			return e
		case strings.HasPrefix(line, ": "):
			e.comment = value
		case name == "id":
			e.id = value
		case name == "event":
			e.kind = value
		case name == "data":
			e.data = value
		default:
			t.Fatalf("unexpected line %q", line)
		}
	}
}

// as decodes the data of an event of a kind.
func (e event) as(t *testing.T, kind string, v any) {
	t.Helper()
	if e.kind != kind {
		t.Fatalf("got %+v, want an event %s", e, kind)
	}
	if err := json.Unmarshal([]byte(e.data), v); err != nil {
		t.Fatalf("%v in %s", err, e.data)
	}
}

// follow opens an event stream over a real socket.
func follow(t *testing.T, server *httptest.Server) (*bufio.Reader, io.Closer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("got status %d and type %s", resp.StatusCode, got)
	}
	return bufio.NewReader(resp.Body), resp.Body
}

func TestAStreamTellsWhatIsAndThenEachChange(t *testing.T) {
	shop, blog := serviceOf("web", "shop"), serviceOf("web", "blog")
	w, server := online(t, shop, blog)
	stream, _ := follow(t, server)
	for i, name := range []string{"shop", "blog"} {
		e := nextEvent(t, stream)
		var is service
		e.as(t, "service", &is)
		if is.Name != name || is.State != "Asleep" || e.id != strconv.Itoa(i+1) {
			t.Fatalf("event %s tells that %s is %s, want %s Asleep", e.id, is.Name, is.State, name)
		}
	}

	began := time.Now()
	if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); err != nil {
		t.Fatal(err)
	}
	for i, want := range []change{
		{Namespace: "web", Name: "shop", From: "Asleep", To: "Waking"},
		{Namespace: "web", Name: "shop", From: "Waking", To: "Awake"},
	} {
		e := nextEvent(t, stream)
		var got change
		e.as(t, "state", &got)
		if got.Time.Before(began.Add(-time.Second)) || got.Time.After(time.Now()) || e.id != strconv.Itoa(i+3) {
			t.Errorf("event %s is of %v", e.id, got.Time)
		}
		want.Time = got.Time
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestAChangeOfATargetIsToldForEachOfItsServices(t *testing.T) {
	shop, grpc := serviceOf("web", "shop"), serviceOf("web", "shop-grpc")
	grpc.Target = shop.Target
	w, server := online(t, shop, grpc)
	w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true})
	stream, _ := follow(t, server)
	nextEvent(t, stream)
	nextEvent(t, stream)
	if _, err := w.Wake(t.Context(), shop.Key, metrics.SourceAPI); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shop", "shop-grpc"} {
		var got change
		nextEvent(t, stream).as(t, "state", &got)
		if got.Name != name || got.To != "Waking" {
			t.Errorf("got %+v, want %s Waking", got, name)
		}
	}
	w.fake.Fail(shop.Key, &scaling.Failure{Reason: scaling.ReasonConfig, Message: "no such key"})
	for range 2 {
		var got change
		nextEvent(t, stream).as(t, "state", &got)
		if got.To != "Failed" || got.Failure == nil || *got.Failure != (failure{scaling.ReasonConfig, "no such key"}) {
			t.Errorf("got %+v and failure %+v, want it Failed, and why", got, got.Failure)
		}
	}
}

// A change may be noticed both by the look at what is, and by its notice, which then would seem to turn time back.
func TestAStreamDoesNotTellWhatItHasTold(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, _ := online(t, shop)
	w.wake(t, shop.Key)
	status, _ := w.handler.Status(shop.Key)
	news := &newsQueue{signal: make(chan struct{}, 1)}
	notice := scaling.Notice{Target: shop.Target, Services: []scaling.Key{shop.Key}, Time: status.Since}
	notice.From, notice.To = scaling.StateWaking, scaling.StateAwake
	news.add(notice)
	notice.From, notice.To, notice.Time = scaling.StateAwake, scaling.StateDraining, status.Since.Add(1)
	news.add(notice)
	stream, _ := follow(t, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_ = w.tell(r, &eventStream{w: rw, control: http.NewResponseController(rw)}, news)
	})))
	var is service
	nextEvent(t, stream).as(t, "service", &is)
	var got change
	nextEvent(t, stream).as(t, "state", &got)
	if is.State != "Awake" || got.To != "Draining" {
		t.Errorf("after %s it told the change to %s", is.State, got.To)
	}
}

func TestAStreamEndsWithRun(t *testing.T) {
	w, server := online(t, serviceOf("web", "shop"))
	stream, _ := follow(t, server)
	nextEvent(t, stream)
	w.stop()
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		t.Errorf("the stream ended with %q, %v, want its end and nothing else", rest, err)
	}
}

func TestTheNumberOfStreamsIsBounded(t *testing.T) {
	w, server := online(t, serviceOf("web", "shop"))
	var one io.Closer
	for range maxStreams {
		_, one = follow(t, server)
	}
	a := ask(t, server, "GET", "/api/v1/events", "")
	a.problem(t, 503)
	if a.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	one.Close()
	w.streams <- struct{}{} // has room once the server has seen that a client left
	<-w.streams
	follow(t, server)
}

func TestAQuietStreamLivesLongerThanTheServersTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		stream, _ := followInMemory(t, &http.Server{Handler: w.Handler(), ReadTimeout: sec, WriteTimeout: sec, IdleTimeout: sec})
		nextEvent(t, stream)
		began := time.Now()
		for i := range 10 {
			e := nextEvent(t, stream)
			if after := time.Since(began); e.comment == "" || after != time.Duration(i+1)*heartbeat {
				t.Fatalf("got %+v after %v", e, after)
			}
		}
		w.fake.SetSpec(shop.Key, 1)
		nextEvent(t, stream).as(t, "state", &change{})
	})
}

func TestASlowReaderIsToldWhatItMissedAndThenWhatIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := serviceOf("web", "shop")
		w := newWorld(t, shop)
		synctest.Wait()
		stream, _ := followInMemory(t, &http.Server{Handler: w.Handler()})
		nextEvent(t, stream)
		pass(sec)
		w.fake.SetSpec(shop.Key, 1)
		synctest.Wait()
		for i := range 4 * maxUnsent {
			w.fake.SetReady(shop.Key, i%2 == 1)
		}
		synctest.Wait()

		told, missed := 0, lost{}
		for {
			e := nextEvent(t, stream)
			if e.kind != "state" {
				e.as(t, "lost", &missed)
				break
			}
			told++
		}
		var is service
		nextEvent(t, stream).as(t, "service", &is)
		const happened = 4*maxUnsent + 1 // with the first, to Awake
		if told+missed.Changes != happened || told > maxUnsent || is.State != "Awake" {
			t.Errorf("told %d changes and then that it missed %d, of %d; it is %s", told, missed.Changes, happened, is.State)
		}
		pass(sec)
		w.fake.SetReady(shop.Key, false)
		var next change
		nextEvent(t, stream).as(t, "state", &next)
		if next.To != "Waking" {
			t.Errorf("the next change is %+v", next)
		}
	})
}

func TestAReaderWhoTakesNothingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, serviceOf("web", "shop"))
		synctest.Wait()
		stream, _ := followInMemory(t, &http.Server{Handler: w.Handler()})
		nextEvent(t, stream)
		pass(heartbeat + patience - time.Nanosecond)
		if len(w.streams) != 1 {
			t.Error("the stream was dropped too early")
		}
		pass(time.Nanosecond)
		if len(w.streams) != 0 {
			t.Error("the stream is still being served")
		}
	})
}

func TestAReaderWhoLeavesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, serviceOf("web", "shop"))
		synctest.Wait()
		stream, conn := followInMemory(t, &http.Server{Handler: w.Handler()})
		nextEvent(t, stream)
		conn.Close()
		synctest.Wait()
		if len(w.streams) != 0 {
			t.Error("the stream is still being served")
		}
	})
}

// followInMemory opens an event stream over a connection without any buffer, on which testing/synctest can wait.
func followInMemory(t *testing.T, server *http.Server) (*bufio.Reader, net.Conn) {
	t.Helper()
	client, conn := net.Pipe()
	listener := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	listener.conn <- conn
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		client.Close()
		<-served
	})
	if _, err := io.WriteString(client, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(resp.Body), client
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	close(l.closed)
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.IPAddr{} }
