package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxBody is how much of an answer's body is read, as by kubelet; the rest is cut off with the connection.
const maxBody = 10 << 10

// attemptHTTP follows kubelet's rules, a redirect's included: one within the same host is followed, one to another host
// counts as the answer it is.
func (c *Check) attemptHTTP(ctx context.Context) error {
	transport := &http.Transport{
		DialContext:        dial,
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // It asks whether there is an answer, not whose.
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: withinHost}

	request, err := c.request(ctx)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Errorf("GET %s: %s", request.URL.RequestURI(), response.Status)
	}
	// The body counts: an endpoint that sends a header and then hangs cannot answer.
	if _, err := io.CopyN(io.Discard, response.Body, maxBody); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

func (c *Check) request(ctx context.Context) (*http.Request, error) {
	scheme, path := c.Scheme, c.Path
	if scheme == "" {
		scheme = "http"
	}
	if path == "" {
		path = "/"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+c.Address+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "dormouse-probe")
	request.Header.Set("Accept", "*/*")
	for name, values := range c.Header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	return request, nil
}

func withinHost(next *http.Request, via []*http.Request) error {
	if next.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}
