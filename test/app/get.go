package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// fetched is what app get prints of one URL.
type fetched struct {
	URL     string  `json:"url"`
	Status  int     `json:"status,omitempty"`
	Name    string  `json:"name,omitempty"` // the answer's X-App-Name
	Body    string  `json:"body,omitempty"` // at most bodyShown bytes of it
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

const (
	getTimeout = 30 * time.Second
	bodyShown  = 1 << 10
)

// fetchAll requests URLs, one after the other, each on a connection of its own, and prints a line of JSON for each. A pod of
// this program so is a client too, for who runs it there. It fails if one of them has no answer, whatever its status.
func fetchAll(ctx context.Context, urls []string, stdout io.Writer) error {
	if len(urls) == 0 {
		return fmt.Errorf("get: no URL: give one or more, such as http://web.default.svc/")
	}
	client := &http.Client{Timeout: getTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	lines := json.NewEncoder(stdout)
	unanswered := 0
	for _, url := range urls {
		f := fetch(ctx, client, url)
		if f.Error != "" {
			unanswered++
		}
		if err := lines.Encode(f); err != nil {
			return err
		}
	}
	if unanswered > 0 {
		return fmt.Errorf("get: %d of %d URLs had no answer", unanswered, len(urls))
	}
	return nil
}

func fetch(ctx context.Context, client *http.Client, url string) (f fetched) {
	began := time.Now()
	defer func() { f.Seconds = time.Since(began).Seconds() }()
	f.URL = url
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		f.Error = err.Error()
		return f
	}
	resp, err := client.Do(req)
	if err != nil {
		f.Error = err.Error()
		return f
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Error = err.Error()
	}
	f.Status, f.Name, f.Body = resp.StatusCode, resp.Header.Get("X-App-Name"), string(body[:min(len(body), bodyShown)])
	return f
}
