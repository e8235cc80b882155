package feature

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// partSize is more than any buffer keeps back, so that a part of the body is on its way when the application dies.
const partSize = 300 << 10

func TestAClientNoticesThatTheApplicationDiedInMidBody(t *testing.T) {
	t.Parallel()
	var services []string
	type death struct {
		name, path string
		exits      bool
	}
	var deaths []death
	for name, query := range map[string]string{
		"reset, in chunks":           "how=reset",
		"reset, with its length":     "how=reset&cl=1m",
		"closed, in chunks":          "how=fin",
		"closed, with its length":    "how=fin&cl=1m",
		"process dies, in chunks":    "how=exit",
		"process dies, with length":  "how=exit&cl=1m",
		"closed, one byte too early": fmt.Sprintf("how=fin&cl=%d", partSize+1),
	} {
		deaths = append(deaths, death{name, fmt.Sprintf("/crash?after=%d&%s", partSize, query), strings.Contains(query, "exit")})
	}
	for _, protocol := range []string{"HTTP1", "H2C"} {
		services = append(services, app(t, strings.ToLower(protocol), nil, "endpoint: {protocol: "+protocol+"}"))
		for i, x := range deaths { // each start after a crash takes longer than the one before
			for version := range []string{"HTTP/1.1", "HTTP/1.0", "HTTP/2"} {
				if x.exits {
					services = append(services, app(t, fmt.Sprintf("%s-%d-%d", strings.ToLower(protocol), i, version), nil,
						"endpoint: {protocol: "+protocol+"}"))
				}
			}
		}
	}
	d := start(t, services)
	for _, protocol := range []string{"HTTP1", "H2C"} {
		for i, x := range deaths {
			for j, version := range []string{"HTTP/1.1", "HTTP/1.0", "HTTP/2"} {
				t.Run(fmt.Sprintf("%s to %s/%s", version, protocol, x.name), func(t *testing.T) {
					service := strings.ToLower(protocol)
					if x.exits {
						service = fmt.Sprintf("%s-%d-%d", service, i, j)
					}
					if version == "HTTP/2" {
						partOverHTTP2(t, d.in(t), service, x.path)
					} else {
						partOverHTTP1(t, d.in(t), version, service, x.path)
					}
				})
			}
		}
	}
}

// partOverHTTP1 asks for what will never be complete, and looks at every byte that comes.
func partOverHTTP1(t *testing.T, d *dormouse, version, service, path string) {
	w := d.wire()
	w.send("GET " + path + " " + version + "\r\nHost: " + service + ".default\r\n\r\n")
	text, err := io.ReadAll(w.r)
	if !isReset(err) {
		t.Errorf("the connection ended with %v after %d bytes, want a reset", err, len(text))
	}
	header, body, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(header, []byte("HTTP/1.")) || !bytes.HasPrefix(header[len("HTTP/1.1"):], []byte(" 200 ")) {
		t.Fatalf("%.300q", text)
	}
	if bytes.Contains(header, []byte("\r\nTransfer-Encoding: chunked")) {
		whole, err := io.ReadAll(newChunkedReader(body))
		if err == nil {
			t.Error("the chunks have their end")
		}
		body = whole
	}
	partOfLetters(t, body)
}

// newChunkedReader reads the content of chunks.
func newChunkedReader(chunks []byte) io.Reader {
	text := append([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), chunks...)
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
	if err != nil {
		panic(err) // it is written above
	}
	return resp.Body
}

func partOverHTTP2(t *testing.T, d *dormouse, service, path string) {
	c := d.single()
	resp, err := c.RoundTrip(d.request(t.Context(), "GET", service, path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if !isStreamReset(err) {
		t.Errorf("the body ended with %v, want a reset of the stream", err)
	}
	partOfLetters(t, body)
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

// partOfLetters fails the test if there is anything in a body that the application has not sent.
func partOfLetters(t *testing.T, body []byte) {
	t.Helper()
	if len(body) > partSize || !bytes.Equal(body, letters(len(body))) {
		t.Errorf("the body is no part of what was sent: %d bytes, ending in %q", len(body), body[max(0, len(body)-100):])
	}
}

func TestAClientNoticesTheResetOfABodyThatOnlyItsConnectionDelimits(t *testing.T) {
	t.Parallel()
	d := start(t, []string{sham(t, "shop")})
	l := d.listen("shop")
	for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
		t.Run(version, func(t *testing.T) {
			w := d.in(t).wire()
			w.send("GET / " + version + "\r\nHost: shop.default\r\n\r\n")
			up := accept(t, l)
			up.head()
			up.send("HTTP/1.1 200 OK\r\n\r\nabcdef")
			w.head()
			var got []byte
			for !bytes.Contains(got, []byte("abcdef")) {
				b, err := w.r.ReadByte()
				if err != nil {
					t.Fatalf("%v after %q", err, got)
				}
				got = append(got, b)
			}
			resetConn(t, up.Conn)
			rest, err := io.ReadAll(w.r)
			if !isReset(err) || strings.Trim(string(rest), "\r\n") != "" {
				t.Errorf("then came %q and %v, want a reset", rest, err)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		d := d.in(t)
		answers := make(chan error, 1)
		go func() {
			resp, err := d.single().RoundTrip(d.request(t.Context(), "GET", "shop", "/", nil))
			if err == nil {
				_, err = io.ReadFull(resp.Body, make([]byte, 6))
			}
			answers <- err
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				answers <- err
			}
		}()
		up := accept(t, l)
		up.head()
		up.send("HTTP/1.1 200 OK\r\n\r\nabcdef")
		if err := receive(t, "the first bytes", answers); err != nil {
			t.Fatal(err)
		}
		resetConn(t, up.Conn)
		if err := receive(t, "the end of the body", answers); !isStreamReset(err) {
			t.Errorf("the body ended with %v, want a reset of the stream", err)
		}
	})
}

func TestAnApplicationThatDiesBeforeItAnswersIsA502(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "web", nil), app(t, "mortal", nil)})
	for service, how := range map[string]string{"web": "reset", "mortal": "exit"} {
		for _, c := range clients(t) {
			r := sendNow(c, d.request(t.Context(), "GET", service, "/crash?headers=0&how="+how, nil))
			if r.err != nil || r.status != 502 {
				t.Fatalf("%s: %d %v, want 502", how, r.status, r.err)
			}
			problemOf(t, r)
			if strings.Contains(r.body, "127.0.0.1") || strings.Contains(r.body, "reset") {
				t.Errorf("the answer tells too much: %s", r.body)
			}
		}
	}
}

func TestAnUploadThatIsCutShortIsNeverCompleteForTheApplication(t *testing.T) {
	t.Parallel()
	d := start(t, []string{app(t, "http1", nil), app(t, "h2c", nil, "endpoint: {protocol: H2C}")})
	half := string(letters(100 << 10))
	for _, service := range []string{"http1", "h2c"} {
		address := d.address(service)
		d.get(service, "/")
		head := "POST /upload HTTP/1.1\r\nHost: " + service + ".default\r\n"
		for name, cut := range map[string]func(d *dormouse, sent func()){
			"length": func(d *dormouse, sent func()) {
				w := d.wire()
				w.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(half)+1, half))
				sent()
				_ = w.Close()
			},
			"length, half closed": func(d *dormouse, sent func()) {
				w := d.wire()
				w.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(half)+1, half))
				sent()
				if tcp, ok := w.Conn.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
					d.t.Error("cannot close one side")
				}
			},
			"length, reset": func(d *dormouse, sent func()) {
				w := d.wire()
				w.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(half)+1, half))
				sent()
				resetConn(d.t, w.Conn)
			},
			"chunks": func(d *dormouse, sent func()) {
				w := d.wire()
				w.send(head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(half), half))
				sent()
				_ = w.Close()
			},
			"chunks, in the last one": func(d *dormouse, sent func()) {
				w := d.wire()
				w.send(head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(half), half))
				sent()
				_ = w.Close()
			},
			"stream reset": func(d *dormouse, sent func()) {
				f := d.frames()
				f.ask(1, false, ":method", "POST", ":scheme", "http", ":authority", service+".default", ":path", "/upload")
				f.check(0, f.WriteData(1, false, []byte(half[:16<<10])))
				sent()
				f.check(0, f.WriteRSTStream(1, http2.ErrCodeCancel))
			},
			"connection of a stream closed": func(d *dormouse, sent func()) {
				f := d.frames()
				f.ask(1, false, ":method", "POST", ":scheme", "http", ":authority", service+".default", ":path", "/upload")
				f.check(0, f.WriteData(1, false, []byte(half[:16<<10])))
				sent()
				_ = f.Conn.Close()
			},
		} {
			t.Run(service+"/"+name, func(t *testing.T) {
				before := count(t, address)
				cut(d.in(t), func() {
					eventually(t, "the upload has come to the application", func() bool {
						return count(t, address).Requests == before.Requests+1
					})
				})
				eventually(t, "the application has noticed", func() bool {
					return count(t, address).Truncated == before.Truncated+1
				})
				if after := count(t, address); after.Uploads != before.Uploads {
					t.Error("the upload was complete for the application")
				}
			})
		}
	}
}
