package http1

import (
	"sync/atomic"
	"time"
)

// clock makes the Date of answers that have none (RFC 9110 section 6.6.1), once a second.
type clock struct{ latest atomic.Pointer[date] }

type date struct {
	second int64
	text   []byte
}

// dateLayout is RFC 9110's IMF-fixdate.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 GMT"

// appendDate appends the time in the form of a Date field's value.
func (c *clock) appendDate(b []byte, now time.Time) []byte {
	d := c.latest.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &date{second, now.UTC().AppendFormat(nil, dateLayout)}
		c.latest.Store(d)
	}
	return append(b, d.text...)
}
