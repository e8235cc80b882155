package main

import (
	"strings"
	"testing"
	"time"
)

const wrkText = `Running 1s test @ http://127.0.0.1:8080
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   665.93us    1.17ms  20.70ms   97.50%
    Req/Sec   122.46k    13.16k  145.52k    60.99%
  Latency Distribution
     50%  478.00us
     75%  626.00us
     90%    1.00ms
     99%    5.73ms
  121796 requests in 1.00s, 34.15MB read
Requests/sec: 121715.20
Transfer/sec:     34.13MB
`

func TestWhatWrkPrints(t *testing.T) {
	got, err := readWrk(wrkText)
	if want := (sample{requests: 121796, perSecond: 121715.20, p50: 478 * time.Microsecond, p99: 5730 * time.Microsecond}); err != nil || got != want {
		t.Errorf("it reads %+v, %v; want %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"broken connections": wrkText + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
		"other statuses":     wrkText + "  Non-2xx or 3xx responses: 1\n",
		"no request":         strings.Replace(wrkText, "121796 requests", "0 requests", 1),
		"no latencies":       strings.Replace(wrkText, "99%  ", "", 1),
	} {
		if got, err := readWrk(text); err == nil {
			t.Errorf("%s: it reads %+v", name, got)
		}
	}
}
