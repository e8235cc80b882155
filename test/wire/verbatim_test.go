package wire

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/engine"
)

// lines returns the lines of a head that have one of these names, in whatever case.
func lines(head string, names ...string) (found []string) {
	for l := range strings.SplitSeq(head, "\r\n") {
		name, _, _ := strings.Cut(l, ":")
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			found = append(found, l)
		}
	}
	return found
}

// sameLines says whether lines are the wanted ones: byte for byte where the engine keeps the case of names, and with
// net/http but for that.
func sameLines(got, want []string) bool {
	return slices.EqualFunc(got, want, func(a, b string) bool {
		return a == b || engine.Current() == engine.Stdlib && strings.EqualFold(a, b)
	})
}

func TestFieldsPassAsTheyWereWritten(t *testing.T) {
	p := newProxy(t)
	heads := make(chan string, 1)
	p.rawEndpoint(func(c net.Conn) {
		defer c.Close()
		for {
			head := readRequest(c)
			if head == "" {
				return
			}
			heads <- head
			_, _ = io.WriteString(c, "HTTP/1.1 299 Rather fine\r\nx-lower: 1\r\nX-UPPER: 2\r\nX-Many: a\r\nx-many: b\r\nETag: \"e\"\r\n"+
				"WWW-Authenticate: Basic\r\nX-Padded:  \t v w \t \r\nX-Empty:\r\ncontent-length: 2\r\n\r\nok")
		}
	})
	p.ways(t, func(t *testing.T, open func() *line) {
		l := open()
		l.send("GET /a?b HTTP/1.1\r\nhOST: shop.web\r\nx-lower: 1\r\nX-UPPER: 2\r\nX_under.score~!: 3\r\nX-Many: a\r\nx-many: b\r\n" +
			"DNT: 1\r\nX-Bytes: caf\xc3\xa9 \xff\r\nX-Padded:\t v w  \r\nX-Empty:\r\n\r\n")
		head := <-heads
		got := lines(head, "x-lower", "x-upper", "x_under.score~!", "dnt", "x-bytes", "x-padded", "x-empty")
		want := []string{"x-lower: 1", "X-UPPER: 2", "X_under.score~!: 3", "DNT: 1", "X-Bytes: caf\xc3\xa9 \xff", "X-Padded: v w", "X-Empty: "}
		if engine.Current() == engine.Stdlib { // net/http keeps neither case nor order of names
			got, want = strings.Split(strings.ToLower(strings.Join(got, "\n")), "\n"), strings.Split(strings.ToLower(strings.Join(want, "\n")), "\n")
			slices.Sort(want)
			slices.Sort(got)
		}
		for i, g := range got { // an empty value may come without the space
			if name, value, _ := strings.Cut(g, ":"); strings.TrimSpace(value) == "" {
				got[i] = name + ": "
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the endpoint got %q, want %q", got, want)
		}
		if got := lines(head, "x-many"); !sameLines(got, []string{"X-Many: a", "x-many: b"}) {
			t.Errorf("the endpoint got %q", got)
		}
		if !strings.HasPrefix(head, "GET /a?b HTTP/1.1\r\n") {
			t.Errorf("the endpoint got %q", head)
		}

		answer := l.head()
		if engine.Current() == engine.Native && !strings.HasPrefix(answer, "HTTP/1.1 299 Rather fine\r\n") ||
			!strings.HasPrefix(answer, "HTTP/1.1 299 ") {
			t.Errorf("the client got %q", answer)
		}
		for _, want := range [][]string{
			{"x-lower: 1"}, {"X-UPPER: 2"}, {"X-Many: a", "x-many: b"}, {"ETag: \"e\""}, {"WWW-Authenticate: Basic"}, {"X-Padded: v w"},
		} {
			name, _, _ := strings.Cut(want[0], ":")
			if got := lines(answer, name); !sameLines(got, want) {
				t.Errorf("the client got %q, want %q", got, want)
			}
		}
		if got := lines(answer, "content-length"); len(got) != 1 {
			t.Errorf("the client got %q", got)
		}
		if _, err := io.ReadFull(l.r, make([]byte, 2)); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAnswerHasADate(t *testing.T) {
	p := newProxy(t)
	p.answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
	l := p.line(t)
	l.send(get + "GET / HTTP/1.1\r\nHost: unknown\r\n\r\n")
	for range 2 { // ours too (RFC 9110 section 6.6.1)
		if resp, _ := l.answer("GET"); len(resp.Header["Date"]) != 1 || !strings.HasSuffix(resp.Header.Get("Date"), " GMT") {
			t.Errorf("%s has Date %q", resp.Status, resp.Header["Date"])
		}
	}
}
