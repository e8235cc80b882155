package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// flush is what one cold start did to those who were held.
type flush struct {
	first, p50, last time.Duration // from the application listening to the first bytes of the answers
	proven           time.Duration // from the first proof that the application answers to the first byte of an answer
	drops            int64         // connections that the kernel dropped because the backlog was full
}

// cold measures cold starts. The application listens with a backlog of 128.
func cold(ctx context.Context, dir string, s settings, out io.Writer) error {
	timesOne, timesMany, held := 25, 5, []int{100, 1000, 9500}
	if s.quick {
		timesOne, timesMany, held = 3, 1, []int{100, 1000}
	}
	one, err := coldStarts(ctx, dir, 1, timesOne, 100*time.Millisecond)
	if err != nil {
		return err
	}
	rows := map[int][]flush{1: one}
	for _, n := range held {
		delay := 500 * time.Millisecond
		if n > 5000 {
			delay = 2 * time.Second
		}
		if rows[n], err = coldStarts(ctx, dir, n, timesMany, delay); err != nil {
			return fmt.Errorf("%d held: %w", n, err)
		}
		fmt.Printf("cold: %d held done\n", n)
	}
	reportCold(out, held, rows)
	return nil
}

// coldStarts makes times cold starts with n requests held, each on a connection of its own.
func coldStarts(ctx context.Context, dir string, n, times int, delay time.Duration) ([]flush, error) {
	var flushes []flush
	for range times {
		// Another activator for each, so that memory grown in the one before does not count.
		a, err := startActivator(ctx, dir, fmt.Sprintf(`- name: app
  process: {command: [%q, --backlog=128, --listen-delay=%v, --protocol=http1]}
  routes: [{}]
  idle: {after: 24h}
`, filepath.Join(dir, "app"), delay), "--max-connections=9800")
		if err != nil {
			return nil, err
		}
		f, err := coldStart(ctx, a, n)
		a.stop()
		if err != nil {
			return nil, err
		}
		flushes = append(flushes, f)
	}
	return flushes, nil
}

func coldStart(ctx context.Context, a *activator, n int) (flush, error) {
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	var dialer net.Dialer
	for i := range conns { // before the first request, so that the application's delay is time to send them all
		c, err := dialer.DialContext(ctx, "tcp", a.http)
		if err != nil {
			return flush{}, fmt.Errorf("connect: %w", err)
		}
		conns[i] = c
	}
	drops := synDrops()

	answers := make([]answer, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() { answers[i], errs[i] = ask(c) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return flush{}, fmt.Errorf("of %d requests some were lost: %w", n, err)
	}
	proven, err := a.metric(`dormouse_cold_start_phase_duration_seconds_sum{namespace="default",phase="flush",service="app"}`)
	if err != nil {
		return flush{}, err
	}
	var took []time.Duration
	for _, a := range answers {
		took = append(took, a.first.Sub(a.listening))
	}
	sortDurations(took)
	return flush{
		proven: time.Duration(proven * float64(time.Second)), first: took[0], p50: took[n/2], last: took[n-1],
		drops: synDrops() - drops,
	}, nil
}

// answer is when the application said that it began to listen, and when the first byte of its answer came.
type answer struct{ listening, first time.Time }

var errStatus = errors.New("the status is not 200")

func ask(c net.Conn) (answer, error) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return answer{}, fmt.Errorf("send: %w", err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadSlice('\n')
	a := answer{first: time.Now()}
	if err != nil {
		return a, fmt.Errorf("receive: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return a, fmt.Errorf("%w: %s", errStatus, line)
	}
	for len(bytes.TrimSpace(line)) > 0 {
		if name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(": ")); ok && bytes.EqualFold(name, []byte("X-App-Listening")) {
			nanos, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				return a, fmt.Errorf("read when the application listened: %w", err)
			}
			a.listening = time.Unix(0, nanos)
		}
		if line, err = r.ReadSlice('\n'); err != nil {
			return a, fmt.Errorf("receive: %w", err)
		}
	}
	return a, nil
}
