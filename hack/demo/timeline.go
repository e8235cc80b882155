package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// change is a change of state as the activator's event stream tells it.
type change struct {
	Time     time.Time `json:"time"`
	Name     string    `json:"name"`
	From, To string
}

// follow opens the activator's event stream. It has begun when follow returns: nothing that happens later is missed.
func follow(ctx context.Context, control string) (<-chan change, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+control+"/api/v1/events", nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	resp, err := (&http.Client{}).Do(r)
	if err != nil {
		return nil, fmt.Errorf("follow the activator's events: %w", err)
	}
	changes := make(chan change, 1000)
	go func() {
		defer close(changes)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var c change
			if ok && json.Unmarshal([]byte(data), &c) == nil && c.To != "" {
				changes <- c
			}
		}
	}()
	return changes, nil
}

// timeline prints what happens, and keeps what it sums up.
type timeline struct {
	began   time.Time
	results []result
	woken   map[string]time.Duration // how long each service took to wake
}

func newTimeline() *timeline {
	return &timeline{began: time.Now(), woken: make(map[string]time.Duration)}
}

func (t *timeline) begin() { t.began = time.Now() }

func (t *timeline) say(format string, args ...any) {
	t.sayAt(time.Now(), format, args...)
}

func (t *timeline) sayAt(at time.Time, format string, args ...any) {
	fmt.Printf("%8.3f s  %s\n", max(0, at.Sub(t.began).Seconds()), fmt.Sprintf(format, args...))
}

// watch follows until every request has its result.
func (t *timeline) watch(ctx context.Context, events <-chan change, results <-chan result) error {
	waking := make(map[string]time.Time)
	answered := make(map[int]int)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c, ok := <-events:
			if !ok {
				return errors.New("the activator's events ended")
			}
			switch c.To {
			case "Waking":
				waking[c.Name] = c.Time
				t.sayAt(c.Time, "%-5s is woken, once; its requests are held", c.Name)
			case "Awake":
				t.woken[c.Name] = c.Time.Sub(waking[c.Name])
				t.sayAt(c.Time, "%-5s is awake after %v; what was held is flushed", c.Name, t.woken[c.Name].Round(time.Millisecond))
			default:
				t.sayAt(c.Time, "%-5s is %s", c.Name, strings.ToLower(c.To))
			}
		case r, ok := <-results:
			if !ok {
				return nil
			}
			t.results = append(t.results, r)
			answered[r.service]++
			if r.err != nil {
				t.say("%-5s lost a request: %v", services[r.service].name, r.err)
			}
			if n := answered[r.service]; n == requests/len(services) {
				t.say("%-5s has answered all %d", services[r.service].name, n)
			}
		}
	}
}

// report prints what became of the requests, and returns how many were lost.
func (t *timeline) report() (lost int) {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "service\tkind\tsent\theld\twoken after\tp50\tp99\tlost")
	for i, s := range services {
		var took []time.Duration
		held, bad := 0, 0
		for _, r := range t.results {
			if r.service != i {
				continue
			}
			took = append(took, r.took)
			if r.err != nil {
				bad++
			} else if r.held {
				held++
			}
		}
		slices.Sort(took)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%v\t%v\t%v\t%d\n", s.name, s.kind, len(took), held,
			t.woken[s.name].Round(time.Millisecond), quantile(took, 0.5), quantile(took, 0.99), bad)
		lost += bad
	}
	_ = w.Flush()
	if lost == 0 {
		fmt.Printf("\n%d requests, none lost.\n\n", len(t.results))
	} else {
		fmt.Printf("\n%d requests, %d LOST.\n\n", len(t.results), lost)
	}
	return lost
}

// watchSleep follows until all services sleep.
func (t *timeline) watchSleep(ctx context.Context, events <-chan change) error {
	asleep := make(map[string]bool)
	timeout := time.After(patience)
	for len(asleep) < len(services) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			return errors.New("the services did not fall asleep again")
		case c, ok := <-events:
			if !ok {
				return errors.New("the activator's events ended")
			}
			delete(asleep, c.Name)
			if c.To == "Asleep" {
				asleep[c.Name] = true
				t.sayAt(c.Time, "%-5s is asleep again", c.Name)
			}
		}
	}
	return nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(time.Millisecond)
}
