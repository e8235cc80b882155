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
//   - every process serves every service within 17 s, and from then on as quickly as a start takes: nothing stays fenced or shut;
//   - nobody waits any more, and all counters are zero;
//   - what nobody uses is put to sleep.
//
// What a fence costs is bounded, too: nobody's scale is lowered while somebody waits for it that the leader could have heard of, and
// nobody waits because of a fence that ends aborted for longer than it takes to tell the leader, and the leader to tell.
//
// docs/decisions/0017 lists what was broken in the protocol to see whether this notices, and what it does not notice.
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
