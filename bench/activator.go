package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// activator is a running one.
type activator struct {
	*process
	http, control, metrics string
}

// startActivator starts an activator with services, in YAML.
func startActivator(ctx context.Context, dir, services string, args ...string) (*activator, error) {
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	a := &activator{
		http:    fmt.Sprintf("127.0.0.1:%d", ports[0]),
		control: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		metrics: fmt.Sprintf("127.0.0.1:%d", ports[2]),
	}
	file := filepath.Join(dir, fmt.Sprintf("dormouse-%d.yaml", ports[0])) // several may run at once
	config := fmt.Sprintf("listen: {http: %q, control: %q, metrics: %q}\nservices:\n%s", a.http, a.control, a.metrics, services)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	command := append([]string{filepath.Join(dir, "activator"), "local", "-f", file}, args...)
	var err error
	if a.process, err = startProcess(activatorName, a.http, nil, command...); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		if resp, err := client.Get("http://" + a.metrics + "/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return a, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	a.stop()
	return nil, ctx.Err()
}

// metric returns the sum of all series of a name.
func (a *activator) metric(name string) (float64, error) {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + a.metrics + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	sum := 0.0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if series == name || strings.HasPrefix(series, name+"{") {
			if i := strings.LastIndex(lines.Text(), " "); i > 0 {
				value = lines.Text()[i+1:]
			}
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", lines.Text(), err)
			}
			sum += v
		}
	}
	return sum, nil
}
