package peers

import (
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

func TestTheLastOutcomesAreRemembered(t *testing.T) {
	var o outcomes
	epoch := func(seq int) scaling.Epoch { return scaling.Epoch{Leader: "a/1", Seq: uint64(seq)} }
	for i := range 3 * remembered {
		o.remember(&Outcome{Epoch: epoch(i)})
		o.remember(&Outcome{Epoch: epoch(i), Slept: true}) // said again
	}
	if len(o.by) != remembered {
		t.Errorf("%d are remembered", len(o.by))
	}
	if first := 2 * remembered; o.of(epoch(first-1)) != nil || o.of(epoch(first)) == nil || !o.of(epoch(first)).Slept {
		t.Error("it is not the last ones")
	}
}
