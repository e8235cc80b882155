package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// wrkScript writes what wrk shall send, and returns the file.
func wrkScript(dir string, q kind) (string, error) {
	file := filepath.Join(dir, fmt.Sprintf("%s-%d.lua", q.method, q.body))
	text := fmt.Sprintf("wrk.method = %q\n", q.method)
	if q.body > 0 {
		text += fmt.Sprintf("wrk.body = string.rep(\"x\", %d)\n", q.body)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write wrk's script: %w", err)
	}
	return file, nil
}

// measureFull runs wrk, and calls begin when the warm-up has ended.
func measureFull(ctx context.Context, dir, address string, q kind, s settings, begin func() error) (sample, error) {
	script, err := wrkScript(dir, q)
	if err != nil {
		return sample{}, err
	}
	if !s.quick {
		if _, err := measure(ctx, address+q.path, s.connections, s.warmUp, "-s", script); err != nil {
			return sample{}, err
		}
	}
	if err := begin(); err != nil {
		return sample{}, err
	}
	return measure(ctx, address+q.path, s.connections, s.measured, "-s", script)
}

// measure runs wrk against a target, "host:port/path", for whole seconds, with more of its arguments.
func measure(ctx context.Context, target string, connections int, d time.Duration, more ...string) (sample, error) {
	args := append([]string{"-t1", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", int(d.Seconds())), "--latency"}, more...)
	text, err := exec.CommandContext(ctx, "wrk", append(args, "http://"+target)...).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w\n%s", err, text)
	}
	return readWrk(string(text))
}

// readWrk reads what wrk has printed.
func readWrk(text string) (m sample, err error) {
	if regexp.MustCompile(`Socket errors|Non-2xx`).MatchString(text) {
		return m, fmt.Errorf("wrk saw errors:\n%s", text)
	}
	find := func(pattern string) string {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	}
	var errs [4]error
	m.perSecond, errs[0] = strconv.ParseFloat(find(`Requests/sec:\s+([\d.]+)`), 64)
	m.requests, errs[1] = strconv.Atoi(find(`(\d+) requests in`))
	m.p50, errs[2] = time.ParseDuration(find(`(?m)^\s+50%\s+(\S+)`))
	m.p99, errs[3] = time.ParseDuration(find(`(?m)^\s+99%\s+(\S+)`))
	for _, err := range errs {
		if err != nil {
			return m, fmt.Errorf("read what wrk printed: %w\n%s", err, text)
		}
	}
	if m.requests == 0 {
		return m, fmt.Errorf("wrk counted nothing:\n%s", text)
	}
	return m, nil
}

// measurePaced runs an open loop (see [pace]), and calls begin when the warm-up has ended.
func measurePaced(ctx context.Context, address string, q kind, s settings, rate int, begin func() error) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, fmt.Errorf("find this program: %w", err)
	}
	warmUp, measured := s.warmUp/2, s.measured
	if s.quick {
		warmUp, measured = 50*time.Millisecond, 250*time.Millisecond
	}
	cmd := exec.CommandContext(ctx, self, address, q.method, q.path, strconv.Itoa(q.body), strconv.Itoa(s.connections), strconv.Itoa(rate),
		warmUp.String(), measured.String())
	cmd.Env = append(os.Environ(), "DORMOUSE_BENCH_ROLE="+paceRole)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.StdoutPipe()
	if err != nil {
		return sample{}, fmt.Errorf("make a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return sample{}, fmt.Errorf("start the open loop: %w", err)
	}
	last, began := "", error(nil)
	for lines := bufio.NewScanner(out); lines.Scan(); last = lines.Text() {
		if lines.Text() == "begin" {
			began = begin()
		}
	}
	if err := cmd.Wait(); err != nil {
		return sample{}, fmt.Errorf("the open loop: %w\n%s", err, &problem)
	}
	if began != nil {
		return sample{}, began
	}
	p, err := readPaced(last)
	if err != nil {
		return sample{}, err
	}
	return sample{requests: p.requests, perSecond: float64(p.requests) / p.took.Seconds(), p50: p.p50, p99: p.p99}, nil
}
