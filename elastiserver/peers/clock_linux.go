package peers

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootClock returns the time since the machine started, that in which it was suspended included: what another machine
// does meanwhile it does while we sleep.
func BootClock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic("the system has no CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(now.Nano())
}
