package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/engine"
)

// chunkShapes are chunked bodies that parsers read differently.
func chunkShapes() (all []shape) {
	add := func(want string, chunks string) {
		name := fmt.Sprintf("%.60q", chunks)
		all = append(all, shape{name, "POST /a HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n" + chunks, want})
	}
	const hello, refused = `POST /a "hello"`, "400"
	const rest = "\r\nhello\r\n0\r\n\r\n"

	for _, size := range []string{
		"+5", "-5", "-0", "0x5", "0X5", "5x", "5_", "0_5", "5.0", "5,", "h", "", ";", ";a", "\x005", "5\x00", "\x0b5", "5\x0b", "\xef\xbc\x95", "'5'", "\"5\"", "5 5", "5 a",
		" 5", "\t5", "\r5", "\n5", "10000000000000005", "FFFFFFFFFFFFFFFFF", "8000000000000000", "FFFFFFFFFFFFFFFB", "fffffffffffffffffffffffffffffffb",
		"100000000000000000000000000000005", "5\n", "5;a\n", "5;\n", "5;a\nb", "5;a\rb", "5\r;a", "5\r", "5\r\r", "5;\r", "5\n\n", "5\na", "\r\n5",
	} {
		add(refused, size+rest)
	}
	for _, size := range []string{"5;a", "5;a=b", "5;a=\"b;c\"", "5;a=b;c=d", "5;a=\"\\\"\"", "5;a=\xff", "05", "00005"} {
		add(hello, size+rest)
	}
	for _, size := range []string{ // RFC 9112 has no word for these; or it has, and no number
		"5 ", "5\t", "5 ;a", "5; a", "5;", "5;;", "5;a=", "5;=b", "5;a=\"b", "5;a\x00b", "5;a\x7f", "0000000000000005", "00000000000000005",
		strings.Repeat("0", 100) + "5", strings.Repeat("0", 3000) + "5", "5;" + strings.Repeat("a", 3000),
	} {
		add(refused+"|"+hello, size+rest)
	}
	add(refused, "5;"+strings.Repeat("a", 20_000)+rest)
	add(refused, strings.Repeat("0", 20_000)+"5"+rest)

	// A line feed that one parser takes for the end of an extension and another one does not.
	add(refused, "2;\nxx\r\n4c\r\n0\r\n\r\n"+smuggled)
	add(refused, "0;\n\r\n\r\n"+smuggled)
	add(refused, "0\n\r\n"+smuggled)
	add(refused, "5;a=\"\r\nhello\"\r\n0\r\n\r\n"+smuggled+"\r\n0\r\n\r\n")

	// What stands between chunks.
	for _, end := range []string{"", "\r", "\n", "\n\r", "x\r\n", " \r\n", "\r\r\n", "\rx", "\r\r", "\n\n", "\r\n\r\n", "\x00\r\n", "xx"} {
		add(refused, "5\r\nhello"+end+"0\r\n\r\n")
	}
	add(refused, "5\rxhello\r\n0\r\n\r\n")
	add(refused, "5;a\rxhello\r\n0\r\n\r\n")
	add(refused, "5\r\nhello\r\n0\rx\r\n")
	add(refused, "5\r\nhello\r\n0\r\n\rx")
	add(refused, "4\r\nhello\r\n0\r\n\r\n")
	add(refused, "6\r\nhello\r\n0\r\n\r\n")
	add(hello, "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n")
	add(hello, "5\r\nhello\r\n00000\r\n\r\n")
	add(hello, "5\r\nhello\r\n0;a=b\r\n\r\n")
	add("POST /a", "0\r\n\r\n")

	// The trailer section.
	for _, trailer := range []string{
		"X: y\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Host: evil.test\r\n", "Connection: close\r\n", "X: y\r\nX: z\r\n",
		"Expect: 100-continue\r\n", "Upgrade: websocket\r\n", "Trailer: x\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
	} {
		add(hello, "5\r\nhello\r\n0\r\n"+trailer+"\r\n")
	}
	for _, trailer := range []string{
		smuggled, "nonsense\r\n\r\n", " X: y\r\n\r\n", "X : y\r\n\r\n", ": y\r\n\r\n", "X: y\r\n z\r\n\r\n", "X: y\n\r\n", "X: y\r\n\n", "\n", "X: y\n\n", "X: a\rb\r\n\r\n",
		"X: a\x00\r\n\r\n", "X(: a\r\n\r\n", "X:\r\n y\r\n\r\n", "\r\r\n", "\rX: y\r\n\r\n",
	} {
		add(refused, "5\r\nhello\r\n0\r\n"+trailer)
	}
	return all
}

func TestEveryShapeOfChunksIsRefusedOrOneRequest(t *testing.T) { runShapes(t, chunkShapes()) }

// lineShapes are heads that parsers read differently.
func lineShapes() (all []shape) {
	add := func(want, sent string) { all = append(all, shape{fmt.Sprintf("%.70q", sent), sent, want}) }
	const refused = "400"

	for _, line := range []string{
		"GET /a HTTP/1.1 ", "GET  /a HTTP/1.1", "GET /a  HTTP/1.1", " GET /a HTTP/1.1", "\tGET /a HTTP/1.1", "GET\t/a HTTP/1.1", "GET /a\tHTTP/1.1", "GET\x0b/a HTTP/1.1",
		"GET /a\x0cHTTP/1.1", "GET /a HTTP/1.1\r", "GET /a\rb HTTP/1.1", "GET /a\nb HTTP/1.1", "GET /a\r\nb HTTP/1.1", "GET /a\x00 HTTP/1.1", "GET /a\x7f HTTP/1.1",
		"GET /a b HTTP/1.1", "GET /a http/1.1", "GET /a HTTP/1.1x", "GET /a HTTP/01.1", "GET /a HTTP/11.1", "GET /a HTTP/1", "GET /a HTTP/1.", "GET /a HTTP/.1",
		"GET /a HTTP/1.1.1", "GET /a HTTP /1.1", "GET /a HTTP/1,1", "GET /a HTTP/-1.1", "GET /a HTTP/+1.1", "GET /a ICY/1.1", "GET /a HTTP/\xef\xbc\x91.1", "GET /a",
		"GET", "/a HTTP/1.1", "GE\x00T /a HTTP/1.1", "GE(T /a HTTP/1.1", "GET: /a HTTP/1.1", "G\xc9T /a HTTP/1.1", "GET a HTTP/1.1", "GET ?a HTTP/1.1", "GET * HTTP/1.1",
		"GET ../a HTTP/1.1", "GET @evil/a HTTP/1.1", "GET :80/a HTTP/1.1", "GET shop.web:80 HTTP/1.1", "GET http:/a HTTP/1.1", "GET ftp://shop.web/a HTTP/1.1", "GET http://shop.web:x/ HTTP/1.1",
		"GET http:///a HTTP/1.1", "GET http://?a HTTP/1.1", "GET http://shop.web evil/ HTTP/1.1", "GET #a HTTP/1.1", "GET \\a HTTP/1.1", "GET http://shop\x00.web/ HTTP/1.1", "GET /a%00\x01 HTTP/1.1",
	} {
		add(refused, line+"\r\n"+hostLine+"\r\n")
	}
	skipped := "GET /a" // RFC 9112 section 2.2
	if engine.Current() != engine.Native {
		skipped = refused
	}
	add(skipped, "\r\nGET /a HTTP/1.1\r\n"+hostLine+"\r\n")
	add(refused, "\nGET /a HTTP/1.1\r\n"+hostLine+"\r\n")
	add(refused, "\rGET /a HTTP/1.1\r\n"+hostLine+"\r\n")
	add(refused+"|GET /a", strings.Repeat("\r\n", 1000)+"GET /a HTTP/1.1\r\n"+hostLine+"\r\n")
	add("GET /a", "GET /a HTTP/1.2\r\n"+hostLine+"\r\n")
	add("GET /a; end", "GET /a HTTP/1.0\r\n"+hostLine+"\r\n")
	add("OPTIONS *", "OPTIONS * HTTP/1.1\r\n"+hostLine+"\r\n")
	add("GET //evil.test/a", "GET //evil.test/a HTTP/1.1\r\n"+hostLine+"\r\n")
	add("GET /%0d%0aX:%20y", "GET /%0d%0aX:%20y HTTP/1.1\r\n"+hostLine+"\r\n")
	add("GET /a?http://evil.test/%20HTTP/1.1", "GET /a?http://evil.test/%20HTTP/1.1 HTTP/1.1\r\n"+hostLine+"\r\n")

	const get = "GET /a HTTP/1.1\r\n"
	for _, lines := range []string{
		"", "Accept: x\r\n", hostLine + hostLine, hostLine + "host: evil.test\r\n", "Host: evil.test\r\nHOST: shop.web\r\n", "Host: shop.web, evil.test\r\n", "Host: shop.web@evil.test\r\n",
		"Host: evil.test/shop.web\r\n", "Host: http://shop.web\r\n", "Host: shop.web evil.test\r\n", "Host: shop.web\tevil.test\r\n", "Host: shop.web\x00.evil.test\r\n", "Host : shop.web\r\n",
		"Host\t: shop.web\r\n", " Host: shop.web\r\n", "Host: shop.web\r\n evil.test\r\n", "Host:\r\n shop.web\r\n", "Host: shop.web\rHost: evil.test\r\n", "Host: shop.web\nHost: evil.test\r\n",
		"Host: shop.web#\r\n", "Host: shop.web?\r\n", "Host: shop.web\\\r\n", "Host; shop.web\r\n",
	} {
		add(refused, get+lines+"\r\n")
	}
	for _, line := range []string{
		"X : y", "X\t: y", "X\x0b: y", " X: y", "\tX: y", "X", ": y", ":", "X Y: z", "X\x00: y", "X\x7f: y", "\xe9: y", "X(: y", "X\"Y: z", "X[: y", "X/Y: z", "X@Y: z", "X,Y: z",
		"X: a\x00b", "X: \x00", "X: a\rb", "X: a\r", "X: a\r\r", "X: a\nb", "X: a\nY: b", "X: a\rY: b", "X: a\x01b", "X: a\x1bb", "X: a\x7fb", "X: a\r\n b", "X: a\r\n\tb", "X:\r\n b", "X: a\r\n ",
		"X: a\r\n\rY: b", "\rX: a", "\nX: a", "\r", "X: \x0b", "X: a\x08",
	} {
		add(refused, get+hostLine+line+"\r\n\r\n")
		add(refused, get+line+"\r\n"+hostLine+"\r\n")
	}
	for _, line := range []string{"X:", "X: ", "X:\t", "X: a\tb", "X: \x80\xff", "X: é", "!#$%&'*+-.^_`|~09azAZ: y", "X: \"a", "X: a:b", "X:a", "X: a  ", "Host2: evil.test", "X: ,;=\\{}[]()<>@"} {
		add("GET /a", get+hostLine+line+"\r\n\r\n")
	}
	// Injections that a proxy would make a request of, if it wrote what it did not look at.
	add(refused, get+hostLine+"X: a\r\n\rGET /smuggled HTTP/1.1\r\n\r\n")
	add(refused, get+hostLine+"X: a\n\n"+smuggled)
	add(refused, "GET /a HTTP/1.1\n"+strings.ReplaceAll(hostLine, "\r", "")+"\n"+smuggled)
	add(refused, "GET /a HTTP/1.1\r\n"+hostLine+"\n"+smuggled)
	add(refused, "GET /a HTTP/1.1\r"+hostLine+"\r\r"+smuggled)
	add(refused, get+hostLine+"\r\r\n"+smuggled)
	return all
}

func TestEveryShapeOfAHeadIsRefusedOrOneRequest(t *testing.T) { runShapes(t, lineShapes()) }
