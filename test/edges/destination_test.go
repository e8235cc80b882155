package edges

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestNoClientChoosesTheDestination: whatever a request says of where it is to go, it goes to a service that has a route for
// it, or nowhere. A listener that no service has must not hear a thing.
func TestNoClientChoosesTheDestination(t *testing.T) {
	t.Parallel()
	d := start(t, options{services: []string{app(t, "shop")}})
	d.probe("shop")
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	heard := make(chan string, 100)
	go func() {
		for {
			c, err := secret.Accept()
			if err != nil {
				return
			}
			heard <- c.RemoteAddr().String()
			_ = c.Close()
		}
	}()
	at := secret.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	const own = "Host: shop.default\r\n\r\n"
	for _, request := range []string{
		"GET http://" + at + "/ HTTP/1.1\r\n" + own,
		"GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\n\r\n",
		"GET http://shop.default@" + at + "/ HTTP/1.1\r\n" + own,
		"GET http://" + at + "#@shop.default/ HTTP/1.1\r\n" + own,
		"GET https://" + at + "/ HTTP/1.1\r\n" + own,
		"GET ftp://" + at + "/ HTTP/1.1\r\n" + own,
		"GET //" + at + "/ HTTP/1.1\r\n" + own,
		"GET @" + at + "/ HTTP/1.1\r\n" + own,
		"GET " + at + " HTTP/1.1\r\n" + own,
		"GET /\\\\" + at + "/ HTTP/1.1\r\n" + own,
		"CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n\r\n",
		"CONNECT " + at + " HTTP/1.1\r\n" + own,
		"GET / HTTP/1.1\r\nHost: " + at + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: shop.default@" + at + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: shop.default:" + port + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost:" + port + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: " + at + "\r\nHost: shop.default\r\n\r\n",
		"GET / HTTP/1.1\r\nX-Forwarded-Host: " + at + "\r\nForwarded: host=\"" + at + "\"\r\nX-Host: " + at + "\r\n" + own,
		"GET / HTTP/1.1\r\nX-Original-URL: http://" + at + "/\r\nX-Rewrite-URL: http://" + at + "/\r\n" + own,
		"GET / HTTP/1.1\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\nHost: " + at + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:" + port + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: 2130706433:" + port + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
		"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
	} {
		c := d.dial()
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%.80q: %v", request, err)
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		if resp.StatusCode < 400 && resp.Header.Get("X-App-Name") != "app" || resp.StatusCode >= 500 {
			t.Errorf("%.80q: %s %s", request, resp.Status, body)
		}
		_ = c.Close()
	}
	select {
	case client := <-heard:
		t.Errorf("a connection came from %s", client)
	default:
	}
}
