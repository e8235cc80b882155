package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dormouse-dev/dormouse/test/engine"
)

const (
	hostLine = "Host: shop.web\r\n"
	// smuggled is hidden where one parser sees a body and another one a request.
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.web\r\n\r\n"
	// behind is an honest request that follows what is sent.
	behind = "GET /behind HTTP/1.1\r\nHost: shop.web\r\nConnection: close\r\n\r\n"
)

// shape is a published way to make two parsers disagree, and what must become of it with the native engine: what the
// application gets, or "400", joined by "; " where there are several, and by "|" where there is a choice. Behind is sent
// behind it, and expected where nothing is refused and "end" does not say that the connection ends.
type shape struct {
	name, sent, want string
}

// smuggling are shapes of one request whose framing can be read in several ways.
func smuggling() (all []shape) {
	hidden := fmt.Sprintf("%q", smuggled)
	add := func(name, want, sent string) { all = append(all, shape{name, sent, want}) }
	head := func(lines ...string) string {
		return "POST /a HTTP/1.1\r\n" + hostLine + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	length := func(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }
	chunked := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }
	const coded = "Transfer-Encoding: chunked"

	add("CL.TE", "400", head(length("0\r\n\r\n"+smuggled), coded)+"0\r\n\r\n"+smuggled)
	add("TE.CL", "400", head(coded, "Content-Length: 4")+chunked(smuggled))
	add("CL.TE that agree", "400", head(length("0\r\n\r\n"), coded)+"0\r\n\r\n")
	add("CL of zero beside TE", "400", head("Content-Length: 0", coded)+chunked(smuggled))
	add("CL that is empty beside TE", "400", head("Content-Length:", coded)+chunked(smuggled))
	add("CL.0", "POST /a "+hidden, head(length(smuggled))+smuggled)
	add("TE.0", "POST /a "+hidden, head(coded)+chunked(smuggled))
	add("0.CL", "POST /a; GET /smuggled", head("Content-Length: 0")+smuggled)
	add("no length at all", "POST /a; GET /smuggled", head("Accept: */*")+smuggled)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PROPFIND", "get"} {
		add(method+" with a length", method+" /a "+hidden, method+head(length(smuggled))[4:]+smuggled)
		add(method+" with chunks", method+" /a "+hidden, method+head(coded)[4:]+chunked(smuggled))
	}

	// TE.TE: what might be taken for "chunked", or not.
	for _, value := range []string{
		"xchunked", "chunkedx", "chunk", "chunked, identity", "identity, chunked", "identity", "chunked, chunked", "gzip, chunked",
		"chunked, gzip", "gzip", "x", "chunked;q=1", "chunked;", "chunked x", "x chunked", "\"chunked\"", "'chunked'", "chunked\x00", "\x00chunked",
		"\x0bchunked", "\x0cchunked", "chunked\x0b", "\x7fchunked", "\xa0chunked", "\xc2\xa0chunked", "ch\xc3\xbcnked", "\xffchunked", "c hunked", "",
		"chunked\r\n x", "\r\n chunked", "\r\n\tchunked", "chunked\r", "\rchunked", "chunked\n x", "\nchunked", "x\nTransfer-Encoding: chunked",
		"chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity", "identity\r\nTransfer-Encoding: chunked",
		"\r\nTransfer-Encoding: chunked", "chunked\r\ntransfer-encoding: x", "cow\r\nTRANSFER-ENCODING: chunked",
	} {
		add(fmt.Sprintf("TE: %q", value), "400", head("Transfer-Encoding: "+value)+chunked(smuggled))
		add(fmt.Sprintf("CL and TE: %q", value), "400", head(length(chunked(smuggled)), "Transfer-Encoding: "+value)+chunked(smuggled))
		add(fmt.Sprintf("TE: %q and CL", value), "400", head("Transfer-Encoding: "+value, length(chunked(smuggled)))+chunked(smuggled))
	}
	for _, value := range []string{"chunked", "Chunked", "CHUNKED", "\tchunked", "chunked\t ", "  chunked"} {
		add(fmt.Sprintf("TE: %q alone", value), "POST /a "+hidden, head("Transfer-Encoding:"+value)+chunked(smuggled))
	}
	for _, value := range []string{"chunked,", ",chunked", ", chunked ,"} { // elements that are empty may be left out
		add(fmt.Sprintf("TE: %q alone", value), "400|POST /a "+hidden, head("Transfer-Encoding: "+value)+chunked(smuggled))
	}
	for _, line := range []string{
		"Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding\x0b: chunked", "Transfer-Encoding\x00: chunked",
		"\x00Transfer-Encoding: chunked", "\xefTransfer-Encoding: chunked", " Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked",
		"Transfer-Encoding\r\n: chunked", "Transfer-Encoding", "Transfer Encoding: chunked", "X: x\rTransfer-Encoding: chunked",
		"X: x\nTransfer-Encoding: chunked", "X: x\r\n\rTransfer-Encoding: chunked", "X: x\r\n Transfer-Encoding: chunked",
		"X: x\r\r\nTransfer-Encoding: chunked", "\r\rTransfer-Encoding: chunked", ":Transfer-Encoding: chunked", "Transfer-Encoding;: chunked",
	} {
		add(fmt.Sprintf("CL and line %q", line), "400", head(length(chunked(smuggled)), line)+chunked(smuggled))
	}
	for _, line := range []string{ // other fields, which mean nothing
		"Transfer_Encoding: chunked", "X-Transfer-Encoding: chunked", "Content_Length: 1", "Content-Lengthx: 1", "Transfer-Encodin: chunked",
		"X-HTTP-Method-Override: HEAD", "Content-Encoding: chunked", "Trailer: Content-Length", "Trailer: Transfer-Encoding",
	} {
		add(fmt.Sprintf("CL and line %q", line), "POST /a "+hidden, head(length(smuggled), line)+smuggled)
	}

	for _, value := range []string{
		"+5", "-5", "-0", "0x5", "5 5", "5, 6", "5;", "5.0", "5e0", "\x0b5", "5\x0b", "5\x00", "\x005", "0_5", "5_", "\xef\xbc\x95", "", "five", "5,", ",5",
		"9223372036854775808", "18446744073709551621", "99999999999999999999999999999999999999999999999999", "5\r\n 6", "\r\n 5", "5\r6", "5\n6",
		"5\r\nContent-Length: 6", "5\r\ncontent-length: 0", "0\r\nCONTENT-LENGTH: 5", "5\r\nContent-Length:", "5\r\nContent-Length: 5, 6",
		"5\nContent-Length: 6", "5\rContent-Length: 6", "5\r\nContent-Length : 6", "5\r\n Content-Length: 6", "5\x00\r\nContent-Length: 6",
	} {
		add(fmt.Sprintf("CL: %q", value), "400", head("Content-Length: "+value)+"hello")
	}
	for _, value := range []string{"5", " 5 ", "\t5\t", "005"} {
		add(fmt.Sprintf("CL: %q", value), "POST /a \"hello\"", head("Content-Length:"+value)+"hello")
	}
	add("CL of many zeros", "400|POST /a \"hello\"", head("Content-Length: "+strings.Repeat("0", 30)+"5")+"hello")
	for _, value := range []string{"5, 5", "5,5", "5\r\nContent-Length: 5", "5\r\ncontent-length:5"} { // RFC 9110 section 8.6 leaves it open
		add(fmt.Sprintf("CL: %q", value), "400|POST /a \"hello\"", head("Content-Length: "+value)+"hello")
	}

	// Fields that are to be taken away, or that change what a peer does with the body.
	for _, line := range []string{
		"Connection: Content-Length", "Connection: keep-alive, content-length, x", "Connection: Host", "Connection: Host, Content-Length, Dormouse-Passed, X-Forwarded-For",
		"Connection: Transfer-Encoding", "Connection: ,,", "Connection: \"close", "Connection: Connection", "Keep-Alive: close",
		"Expect: 100-continue", "Expect: 100-Continue", "Expect: 100-continue\r\nExpect: 100-continue", "Expect:",
		"Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
		"Upgrade: TLS/1.0\r\nConnection: upgrade", "Max-Forwards: 0", "Range: bytes=0-0", "Content-Range: bytes 0-0/1", "TE: chunked", "TE: trailers, chunked",
		"Proxy-Connection: close", "Content-Type: message/http", "Sec-WebSocket-Version: 777\r\nUpgrade: websocket\r\nConnection: Upgrade",
	} {
		add(fmt.Sprintf("body by length and %q", line), "POST /a "+hidden, head(line, length(smuggled))+smuggled)
		if !strings.HasPrefix(line, "Connection: Host, Content-Length") {
			add(fmt.Sprintf("body by chunks and %q", line), "POST /a "+hidden, head(line, coded)+chunked(smuggled))
		}
	}
	for _, line := range []string{"Expect: y 100-continue", "Expect: 100-continue, x", "Expect: x", "Expect: 100-continue\r\nExpect: x"} { // RFC 9110 section 10.1.1
		add(fmt.Sprintf("body by length and %q", line), "417|POST /a "+hidden, head(line, length(smuggled))+smuggled)
		add(fmt.Sprintf("body by chunks and %q", line), "417|POST /a "+hidden, head(line, coded)+chunked(smuggled))
	}
	add("body by chunks that Connection names", "POST /a "+hidden, head("Connection: Transfer-Encoding", coded)+chunked(smuggled))

	// HTTP/1.0 and before.
	old := func(lines ...string) string { return strings.Replace(head(lines...), "HTTP/1.1", "HTTP/1.0", 1) }
	add("TE in HTTP/1.0", "400", old(coded)+chunked(smuggled))
	add("TE in HTTP/1.0 that is kept alive", "400", old(coded, "Connection: keep-alive")+chunked(smuggled))
	add("CL and TE in HTTP/1.0", "400", old(coded, "Content-Length: 5", "Connection: keep-alive")+chunked(smuggled))
	add("CL in HTTP/1.0", "POST /a "+hidden+"; end", old(length(smuggled))+smuggled)
	add("CL in HTTP/1.0 that is kept alive", "POST /a "+hidden, old(length(smuggled), "Connection: keep-alive")+smuggled)
	add("HTTP/1.0 without a length", "POST /a; end", old("Accept: */*")+smuggled)
	add("HTTP/0.9", "400", "GET /a\r\n"+smuggled)
	return all
}

func TestEveryShapeOfSmugglingIsRefusedOrOneRequest(t *testing.T) { runShapes(t, smuggling()) }

// runShapes sends each shape, with behind in the same segment and then byte by byte.
func runShapes(t *testing.T, shapes []shape) {
	t.Helper()
	p := newProxy(t)
	r := p.record()
	patience := 10 * time.Second
	if engine.Current() != engine.Native {
		patience = time.Second // it waits for the rest of sizes that native refuses
	}
	for _, s := range shapes {
		for how, parts := range map[string][]string{"whole": {s.sent + behind}, "bytewise": bytewise(s.sent + behind)} {
			if len(parts) > 2000 {
				continue
			}
			t.Run(s.name+"/"+how, func(t *testing.T) {
				before, _ := r.all()
				v := p.converse(t, r, patience, parts...)
				p.awaitIdle()
				requests, _ := r.all()
				s.check(t, v, requests, len(before))
				if _, complaints := r.from(len(requests)); len(complaints) > 0 {
					t.Errorf("what was forwarded can be misread: %q", complaints)
				}
			})
		}
	}
}

func (s shape) mayBeRefused() bool {
	return strings.Contains(s.want, "400") || strings.Contains(s.want, "417")
}

// check compares what became of a shape with what must.
func (s shape) check(t *testing.T, v conversation, requests []recorded, before int) {
	t.Helper()
	got := v.outcome(requests)
	lax := engine.Current() != engine.Native && s.mayBeRefused()
	if !v.ended && !lax {
		t.Errorf("the connection did not end after %q; rest %q", got, v.rest)
	}
	// Whatever reached the application was answered to this client: nothing came out of a body.
	answered := 0
	for _, a := range v.answers {
		if a.recorded >= 0 {
			answered++
		}
	}
	if n := len(requests) - before; n != answered {
		t.Errorf("the client saw %d requests answered, the application %d: %v", answered, n, requests[before:])
	}
	if lax {
		return // net/http reads some of them in its own way; that what it passes on is unambiguous is all there is to ask
	}
	if last := v.last(); !last.close && last.recorded < 0 {
		t.Errorf("the connection is not said to close: %+v", last)
	}
	var wants []string
	for want := range strings.SplitSeq(s.want, "|") {
		if before, ok := strings.CutSuffix(want, "; end"); ok {
			want = before
		} else if !strings.HasSuffix(want, "400") && !strings.HasSuffix(want, "417") {
			want += "; GET /behind"
		}
		wants = append(wants, want)
	}
	if !slices.Contains(wants, got) {
		t.Errorf("got %s\nwant %s", got, strings.Join(wants, "\n  or "))
	}
}
