package wire

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/scaling"
)

// TestDrainingAnswersWhateverStateAConnectionIsIn stops the server while one connection each is in every state.
func TestDrainingAnswersWhateverStateAConnectionIsIn(t *testing.T) {
	for _, way := range []string{"clear", "TLS"} {
		t.Run(way, func(t *testing.T) {
			p := newProxy(t)
			publish, hold := p.kinds()
			open := func() *line { return lineOn(t, p.dials(t)[way]()) }
			warmed := func() *line {
				l := open()
				l.send(asking("/warm"))
				l.said("GET")
				return l
			}
			idle, half, behind, upload, halfBehind := warmed(), warmed(), warmed(), warmed(), warmed()
			hold("shop")
			half.send("GET /half HTTP/1.1\r\nHost: shop.web\r\nX-Half: ") // what has begun is answered
			behind.send(asking("/first") + asking("/second"))
			upload.send("POST /upload HTTP/1.1\r\nHost: shop.web\r\nContent-Length: 10\r\n\r\nhello")
			halfBehind.send(asking("/first") + "GET /second HT")
			p.awaitHeld(3)

			p.stop()
			idle.ended()
			half.send("1\r\n\r\n")
			p.awaitHeld(4)
			halfBehind.send("TP/1.1\r\nHost: shop.web\r\n\r\n")
			upload.send("world")
			publish("shop")
			for l, path := range map[*line]string{half: "/half", upload: "/upload"} {
				resp, body := l.answer("GET")
				if resp.StatusCode != 200 || !resp.Close || !strings.Contains(body, path) {
					t.Errorf("%s: %s %s, close %t", path, resp.Status, body, resp.Close)
				}
				l.ended()
			}
			// An answer that says close is the last: RFC 9112 section 9.6. Whoever is told so sends the others again.
			for _, l := range []*line{behind, halfBehind} {
				resp, body := l.answer("GET")
				if resp.StatusCode != 200 || !strings.Contains(body, "/first") {
					t.Errorf("%s %s", resp.Status, body)
				}
				if resp.Close {
					if rest, _ := io.ReadAll(l.r); len(rest) > 0 {
						t.Errorf("behind the last answer came %q", rest)
					}
					continue
				}
				if resp, body := l.answer("GET"); resp.StatusCode != 200 || !strings.Contains(body, "/second") {
					t.Errorf("%s %s", resp.Status, body)
				}
			}
			if err := p.awaitEnd(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAtTheDrainTimeoutEveryStateIsEnded(t *testing.T) {
	p := newProxy(t, func(c *activator.Config, _ *scaling.Service) { c.DrainTimeout = 300 * time.Millisecond })
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	p.two(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			select {
			case <-block:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-block:
		case <-r.Context().Done():
		}
	})
	send := func(text string) *line {
		l := p.line(t)
		l.send(text)
		return l
	}
	held := send(get)
	silent := send("GET /silent HTTP/1.1\r\nHost: warm.web\r\n\r\n")
	begun := send("GET /begun HTTP/1.1\r\nHost: warm.web\r\n\r\n")
	begun.head()
	if _, err := io.ReadFull(begun.r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	half := send("GET /half HTTP/1.1\r\nHost: warm.web\r\nX-")
	p.awaitHeld(1)
	eventually(t, "all to be on their way", func() bool { open, _ := p.server.Connections(); return open == 4 })

	p.stop()
	if err := p.awaitEnd(); err == nil {
		t.Error("it ended in time")
	}
	if resp, _ := held.answer("GET"); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("held: %s, close %t", resp.Status, resp.Close)
	}
	for name, l := range map[string]*line{"silent": silent, "begun": begun} {
		all, err := io.ReadAll(l.r)
		refused := strings.HasPrefix(string(all), "HTTP/1.1 503 ")
		if err == nil && !(name == "silent" && refused) {
			t.Errorf("%s: a clean end after %q", name, all)
		}
	}
	_, _ = io.Copy(io.Discard, half.r)
	if open, _ := p.server.Connections(); open != 0 {
		t.Errorf("%d connections are open", open)
	}
}

func TestWhileDrainingNewRequestsOfOldConnectionsAreServedOnce(t *testing.T) {
	p := newProxy(t)
	done := make(chan struct{})
	slow := make(chan struct{})
	p.serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(slow)
			<-done
		}
		named(w, r)
	})
	l := p.line(t)
	l.send(asking("/slow"))
	<-slow
	other := p.line(t)
	other.send(asking("/before"))
	other.want("GET", 200, "GET /before ")
	p.stop()
	eventually(t, "nobody to be accepted", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(done)
	if resp := l.want("GET", 200, "GET /slow "); !resp.Close {
		t.Error("the connection is not said to close")
	}
	l.ended()
	other.ended()
	began := time.Now()
	if err := p.awaitEnd(); err != nil || time.Since(began) > 3*time.Second {
		t.Errorf("it ended with %v after %v", err, time.Since(began))
	}
}
