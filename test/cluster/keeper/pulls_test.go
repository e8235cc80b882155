package keeper

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPullsFailAsChosen(t *testing.T) {
	t.Parallel()
	p := servedPulls(t)
	if p.current() != PullMissing {
		t.Errorf("at first pulls are %q, want %q", p.current(), PullMissing)
	}
	for how, want := range map[PullFailure]int{
		PullMissing: http.StatusNotFound, PullDenied: http.StatusForbidden, PullBroken: http.StatusInternalServerError,
	} {
		if err := p.fail(how); err != nil {
			t.Fatal(err)
		}
		if got, err := pull(t.Context(), p); err != nil || got != want {
			t.Errorf("%s: status %d, %v; want %d", how, got, err, want)
		}
	}
	if err := p.fail("sometimes"); err == nil || !strings.Contains(err.Error(), "missing, denied, broken or hangs") {
		t.Errorf("an unknown way: %v, want the ways there are", err)
	}
}

func TestAPullThatHangsIsAnsweredWhenAnotherWayIsChosen(t *testing.T) {
	t.Parallel()
	p := servedPulls(t)
	if err := p.fail(PullHangs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if status, err := pull(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a pull that hangs: status %d, %v; want none", status, err)
	}
	answer := make(chan int, 1)
	go func() {
		status, err := pull(t.Context(), p)
		if err != nil {
			t.Error(err)
		}
		answer <- status
	}()
	if err := p.fail(PullDenied); err != nil {
		t.Fatal(err)
	}
	select {
	case status := <-answer:
		if status != http.StatusForbidden {
			t.Errorf("status %d, want %d", status, http.StatusForbidden)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still hangs")
	}
}

func TestContainerdIsToldThatEveryRegistryIsTheKeepers(t *testing.T) {
	t.Parallel()
	p, dir := servedPulls(t), t.TempDir()
	if err := p.configure(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "_default", "hosts.toml"))
	if err != nil || !strings.Contains(string(text), p.address) || !strings.HasPrefix(p.address, "127.0.0.1:") {
		t.Errorf("hosts.toml: %s, %v; want %s in it, on loopback", text, err, p.address)
	}
}

func servedPulls(t *testing.T) *pulls {
	t.Helper()
	p, err := servePulls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pull(ctx context.Context, p *pulls) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/v2/app/manifests/1", http.NoBody)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
