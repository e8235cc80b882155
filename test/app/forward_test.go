package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/test/app/apptest"
)

func TestForwardPassesRequestAndAnswerOn(t *testing.T) {
	t.Parallel()
	behind := apptest.Start(t, "--name=behind")
	before := apptest.Start(t, "--name=before")
	forward := func(to string) string { return before.URL("/forward?to=" + url.QueryEscape(to)) }

	req := request(t, http.MethodPost, forward(behind.URL("/elsewhere")), strings.NewReader("body"))
	req.Host = "shop.example.com"
	req.Header.Set("X-Mark", "kept")
	resp, body := do(t, http1(t), req)
	got := decode[struct {
		Method, Host string
		Headers      map[string][]string
	}](t, body)
	if resp.Header.Get("X-App-Name") != "behind" || got.Method != http.MethodPost || got.Host != "shop.example.com" || len(got.Headers["X-Mark"]) != 1 {
		t.Errorf("answered by %q, who received %+v", resp.Header.Get("X-App-Name"), got)
	}

	if resp, _ := get(t, http1(t), forward(behind.URL("/status/508"))); resp.StatusCode != 508 {
		t.Errorf("status %d, want what it got, 508", resp.StatusCode)
	}
	if resp, _ := get(t, http1(t), forward("http://127.0.0.1:1/")); resp.StatusCode != 502 {
		t.Errorf("status %d for nobody there", resp.StatusCode)
	}
	if resp, _ := get(t, http1(t), before.URL("/forward?to=nonsense")); resp.StatusCode != 400 {
		t.Errorf("status %d for no URL", resp.StatusCode)
	}
}
