package target

import (
	"testing"
	"time"
)

func TestARefusalIsFinalWhenItLastsWithoutAnyPod(t *testing.T) {
	const patience = 10 * time.Second
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	never := time.Time{}
	for _, test := range []struct {
		what string
		tell func(*refusal)
		want time.Time
	}{
		{"nothing was refused", func(r *refusal) { r.podsLeft(at(0), 0) }, never},
		{"refused, and nobody counted pods", func(r *refusal) { r.condition(at(1), "no") }, never},
		{"refused, without pods", func(r *refusal) { r.podsLeft(at(0), 0); r.condition(at(1), "no") }, at(11)},
		{"refused again", func(r *refusal) { r.podsLeft(at(0), 0); r.condition(at(1), "no"); r.condition(at(5), "still no") }, at(11)},
		{"an old pod is left", func(r *refusal) { r.podsLeft(at(0), 1); r.condition(at(1), "no") }, never},
		{"the old pod went soon after", func(r *refusal) { r.podsLeft(at(0), 1); r.condition(at(1), "no"); r.podsLeft(at(4), 0) }, at(14)},
		{"the old pod took long to go", func(r *refusal) { r.podsLeft(at(0), 1); r.condition(at(1), "no"); r.podsLeft(at(31), 0) }, at(61)},
		{"refused no longer", func(r *refusal) { r.podsLeft(at(0), 0); r.condition(at(1), "no"); r.condition(at(2), "") }, never},
		{"refused anew", func(r *refusal) {
			r.podsLeft(at(0), 0)
			r.condition(at(1), "no")
			r.condition(at(2), "")
			r.condition(at(3), "no")
		}, at(13)},
		{"a pod came", func(r *refusal) { r.podsLeft(at(0), 0); r.condition(at(1), "no"); r.podsLeft(at(2), 1) }, never},
		{"by an Event", func(r *refusal) { r.podsLeft(at(0), 0); r.event(at(3), "no"); r.condition(at(4), "") }, at(13)},
		{"by an Event, before a pod came and went", func(r *refusal) {
			r.podsLeft(at(0), 0)
			r.event(at(1), "no")
			r.podsLeft(at(2), 1)
			r.podsLeft(at(3), 0)
		}, never},
		{"by an Event, while one old pod after the other goes", func(r *refusal) {
			r.podsLeft(at(0), 2)
			r.event(at(1), "no")
			r.podsLeft(at(2), 1)
			r.podsLeft(at(3), 0)
		}, at(13)},
	} {
		var r refusal
		test.tell(&r)
		if got := r.finalAt(patience); !got.Equal(test.want) {
			t.Errorf("%s: final at %v, want %v", test.what, got, test.want)
		}
	}
}
