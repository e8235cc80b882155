package service

import (
	"strconv"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// AppendTiming appends the value of a Server-Timing field (https://www.w3.org/TR/server-timing) for a request that was
// held for so long, by the wake or, where it is nil, by none.
func AppendTiming(b []byte, wake *scaling.Wake, wait time.Duration) []byte {
	b = appendMetric(b, "hold", wait)
	if wake == nil {
		return b
	}
	b = appendMetric(append(b, ", "...), "scale", wake.Scale)
	b = appendMetric(append(b, ", "...), "schedule", wake.Schedule)
	b = appendMetric(append(b, ", "...), "start", wake.Start)
	return appendMetric(append(b, ", "...), "ready", wake.Ready)
}

// appendMetric appends one metric, in milliseconds.
func appendMetric(b []byte, name string, d time.Duration) []byte {
	b = append(append(b, name...), ";dur="...)
	return strconv.AppendFloat(b, float64(d)/float64(time.Millisecond), 'f', 1, 64)
}
