package local

import (
	"math"
	"time"

	"go.yaml.in/yaml/v3"
)

// The functions below make what takes the value of one field. Each leaves the default where the value is null or a
// mistake.

func mapping(known fields) func(value) { return func(v value) { v.mapping(known) } }

func boolean(to *bool) func(value) {
	return func(v value) {
		switch {
		case !v.set():
		case v.node.ShortTag() != "!!bool" || v.node.Decode(to) != nil:
			v.fail("this must be true or false, not %s", v.kind())
		}
	}
}

// number takes a whole number that is not negative and at most most.
func number(to *int, most int) func(value) {
	return func(v value) {
		var n int
		switch {
		case !v.set():
		case v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!int":
			v.fail("this must be a whole number, not %s", v.kind())
		case v.node.Decode(&n) != nil || n > most:
			v.fail("%s is too large; the most is %d", v.node.Value, most)
		case n < 0:
			v.fail("%d is negative", n)
		default:
			*to = n
		}
	}
}

func replicas(to *int32) func(value) {
	return func(v value) {
		n := int(*to)
		number(&n, math.MaxInt32)(v)
		*to = int32(n)
	}
}

func duration(to *time.Duration) func(value) {
	return func(v value) {
		if !v.set() {
			return
		}
		if v.node.Kind != yaml.ScalarNode {
			v.fail("this must be a duration, such as 30s or 5m, not %s", v.kind())
			return
		}
		d, err := time.ParseDuration(v.node.Value)
		switch {
		case err != nil:
			v.fail("%q is not a duration; use a number and a unit, such as 30s or 5m", v.node.Value)
		case d < 0:
			v.fail("%s is negative", v.node.Value)
		default:
			*to = d
		}
	}
}
