package http1

import (
	"sync/atomic"
	"time"
)

// clock makes the Date of answers that have none (RFC 9110 section 6.6.1), once a second, and stamps for atomic variables.
type clock struct {
	began  time.Time // what stamps are counted from
	latest atomic.Pointer[date]
}

type date struct {
	second int64
	text   []byte
}

// dateLayout is RFC 9110's IMF-fixdate.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 GMT"

// stamp returns a time as a positive number. Other than its Unix time it is of the monotonic clock: whoever sets the machine's
// time must not break anything off.
func (c *clock) stamp(t time.Time) int64 { return max(1, int64(t.Sub(c.began))) }

// at returns the time that was stamped.
func (c *clock) at(stamp int64) time.Time { return c.began.Add(time.Duration(stamp)) }

// appendDate appends the time in the form of a Date field's value.
func (c *clock) appendDate(b []byte, now time.Time) []byte {
	d := c.latest.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &date{second, now.UTC().AppendFormat(nil, dateLayout)}
		c.latest.Store(d)
	}
	return append(b, d.text...)
}
