package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const h2loadText = `Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 1.16s, 63637.00 req/s, 4.31MB/s
requests: 63637 total, 63701 started, 63637 done, 63637 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 63638 2xx, 0 3xx, 0 4xx, 0 5xx
time for request:       41us    176.81ms       877us      6.67ms    99.67%
`

func TestWhatH2loadPrintsIsRead(t *testing.T) {
	t.Parallel()
	got, err := parseH2load([]byte(h2loadText))
	if want := (h2loadCounts{perSecond: 63637, requests: 63637}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestARunOfH2loadWithErrorsIsNone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"a failure":        {"0 failed", "1 failed"},
		"an error":         {"0 errored", "1 errored"},
		"a timeout":        {"0 timeout", "1 timeout"},
		"another status":   {"63637 succeeded", "63636 succeeded"},
		"nothing":          {"63637 done, 63637 succeeded", "0 done, 0 succeeded"},
		"another language": {"requests:", "Anfragen:"},
	} {
		text := strings.Replace(h2loadText, change[0], change[1], 1)
		if got, err := parseH2load([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLatenciesAreReadFromH2loadsLog(t *testing.T) {
	t.Parallel()
	got, err := parseH2loadLog("1795432189174674\t200\t199\n1795432189174730\t200\t525\n")
	if want := []time.Duration{199 * time.Microsecond, 525 * time.Microsecond}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, text := range []string{"1795432189174674\t200\n", "1795432189174674\t200\tquick\n"} {
		if got, err := parseH2loadLog(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRatiosCompareWithinARound(t *testing.T) {
	t.Parallel()
	got := cpuRatios([]loaded{{micros: 10}, {micros: 60}}, []loaded{{micros: 20}, {micros: 40}})
	if want := []float64{0.5, 1.5}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTheMedianIsJudged(t *testing.T) {
	t.Parallel()
	for want, samples := range map[string][][]float64{
		"yes": {{8}, {9, 1, 8}, {100, 8, 0}},
		"no":  {{8.1}, {9, 1, 9}, {}, {math.NaN()}, {math.Inf(1)}},
	} {
		for _, v := range samples {
			if got := within(v, 8); got != want {
				t.Errorf("%v within 8: %s", v, got)
			}
		}
	}
}
