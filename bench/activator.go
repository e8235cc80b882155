package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// activator is a running one.
type activator struct {
	*process
	http, https, control, metrics string // addresses; https is empty without a certificate
}

// engine is an HTTP/1.1 engine of the activator.
type engine struct {
	name string // of the activator with it, in tables
	args []string
}

// engines are those that the activator in dir can choose from, its own first.
func engines(ctx context.Context, dir string) ([]engine, error) {
	help, err := exec.CommandContext(ctx, filepath.Join(dir, "activator"), "local", "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the activator for its flags: %w", err)
	}
	if !bytes.Contains(help, []byte("--http1-engine")) {
		return []engine{{name: activatorName}}, nil
	}
	return []engine{
		{activatorName, []string{"--http1-engine=native"}},
		{activatorName + " (net/http engine)", []string{"--http1-engine=stdlib"}},
	}, nil
}

// startActivator starts an activator with services, in YAML.
func startActivator(ctx context.Context, dir, services string, args ...string) (*activator, error) {
	return activatorConfig{services: services, args: args}.start(ctx, dir)
}

// activatorConfig is how an activator is started.
type activatorConfig struct {
	services    string // in YAML
	args        []string
	certificate *certificate // or nil: no TLS
}

func (c activatorConfig) start(ctx context.Context, dir string) (*activator, error) {
	var ports [4]int
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
	secure := ""
	if c.certificate != nil {
		a.https = fmt.Sprintf("127.0.0.1:%d", ports[3])
		secure = fmt.Sprintf("tls: {cert: %q, key: %q}\n", c.certificate.file, c.certificate.key)
	}
	file := filepath.Join(dir, fmt.Sprintf("dormouse-%d.yaml", ports[0])) // several may run at once
	config := fmt.Sprintf("listen: {http: %q, https: %q, control: %q, metrics: %q}\n%sservices:\n%s",
		a.http, a.https, a.control, a.metrics, secure, c.services)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	command := append([]string{filepath.Join(dir, "activator"), "local", "-f", file}, c.args...)
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
