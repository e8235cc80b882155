//go:build !linux

package peers

import "time"

// BootClock returns the time since 1970 on the wall clock, as there is no better one.
func BootClock() time.Duration { return time.Duration(time.Now().UnixNano()) }
