package local

import (
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// The pace of restarts. A replica that is restarted for the fourth time since it was last asked for is in a crash loop
// (DESIGN section 4, Waking); one that was ready for a while begins anew.
const (
	firstPause  = 100 * time.Millisecond
	maxPause    = 30 * time.Second
	maxRestarts = 3
	provenAfter = 10 * time.Second
)

// ending is how one run of a process ended, or why there was none.
type ending struct {
	failure *scaling.Failure // what to say if there is no hope left
	final   bool             // another start would end like this one, until somebody has mended something
	served  time.Duration    // how long it was ready; zero: never
}

// restarts counts a replica's restarts since it was last asked for.
type restarts int

// next says how long to wait for the restart after an ending, and whether the replica has failed: then there is no
// reason to hope for the restart. After a final ending there is none: pause is negative.
func (r *restarts) next(e ending) (pause time.Duration, failed bool) {
	if e.final {
		return -1, true
	}
	if e.served >= provenAfter {
		*r = 0
	}
	n := *r
	*r++
	return min(firstPause<<min(n, 20), maxPause), n >= maxRestarts
}
