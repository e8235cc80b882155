// Package fleet is the randomized proof of what several activators do together: the fence that docs/decisions/0017 specifies.
//
// A schedule is played in a testing/synctest bubble by one to four activators, each of which is the real scaling.ScaleHandler,
// hold.Gates, elastiserver.Server and peers.Fleet. All around them is simulated, and does its worst: a network whose messages are
// late and whose streams break, and in some schedules lose, double and disorder what they carry; an API server whose writes land
// late, or never, or without an answer; watches that lag, each by its own time; a lease that is lost at any step; processes that
// are killed, and start again at the same address; clocks that differ; other writers, clients and operators. Then everything is
// mended. All the time the world looks whether
//
//   - any request is at an endpoint, or goes to one, that ends because the system itself has lowered the scale;
//   - each request ends once, with an answer, unless its client left or its process died;
//
// and in the end whether
//
//   - every process serves every service within 15 s, and from then on as quickly as a start takes: nothing stays fenced or shut;
//   - nobody waits any more, and all counters are zero;
//   - what nobody uses is put to sleep.
//
// It has been seen to notice: a leader that asks nobody; a member without a stream that is not waited for; a write without an answer
// after which the fence is lifted at once; an endpoint that comes between the reading and the write, and is not condemned; and a
// member that hears of the outcome late, and waits for a snapshot that has come already.
//
// A schedule is made by its seed, which a failure names: go test ./test/fleet -run 'Schedules/seed=17$' -seed 17 -schedules 1. What
// Go's scheduler adds is not in it, so a failure may need -count to be seen again. -story tells more of what led to it.
package fleet

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
)

func TestMain(m *testing.M) {
	flag.Int("schedules", schedules, "how many schedules are run")
	flag.Uint64("seed", 1, "the seed of the first; each next one's is one more")
	flag.Int("story", 400, "how many lines of what led to a failure are told")
	os.Exit(m.Run())
}

func TestSchedules(t *testing.T) {
	count, first, story := number(t, "schedules"), number(t, "seed"), number(t, "story")
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed, int(story)).live() })
		})
	}
}

func number(t *testing.T, name string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(flag.Lookup(name).Value.String(), 10, 63)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
