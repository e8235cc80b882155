// Package model is the randomized proof of the data path: thousands of random schedules against the real gates, the real
// ScaleHandler and the real elastiserver, in a testing/synctest bubble each, beside a simple model that says what must
// hold.
//
// A schedule is a list of things that happen to a few services: requests arrive and leave, endpoints flap, crash, refuse
// and fail, the scale is written late, wrongly or by others, the watch lags and breaks, the configuration changes,
// operators interfere. Then everything is mended, and the model looks whether
//
//   - every request had exactly one end, and none was told twice;
//   - those of a service were granted in the order in which they came;
//   - no endpoint, by identity, ever had more than its capacity;
//   - no endpoint condemned by a sleep got a new request, and no sleep was written over one in flight;
//   - everybody who waited was served once the platform could start the service;
//   - all counters are zero in the end, all connections closed, all targets asleep, and no goroutine is left.
//
// A schedule is made by its seed, which a failure names: go test ./test/model -run 'Schedules/seed=17$' -seed 17. What Go's
// scheduler and the choice among endpoints add is not in it, so a failure may need -count to be seen again.
package model

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
)

func TestMain(m *testing.M) {
	flag.Int("schedules", 2000, "how many schedules are run")
	flag.Uint64("seed", 1, "the seed of the first; each next one's is one more")
	os.Exit(m.Run())
}

func TestSchedules(t *testing.T) {
	schedules, err := strconv.ParseUint(flag.Lookup("schedules").Value.String(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.ParseUint(flag.Lookup("seed").Value.String(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for seed := first; seed < first+schedules; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed).live() })
		})
	}
}
