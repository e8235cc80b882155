package main

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What is compared is worth no more than this figure.
func TestCPUIsUserAndSystemTimeOfAllThreads(t *testing.T) {
	rusage := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var threads sync.WaitGroup
	for range 2 {
		threads.Go(func() {
			for began := rusage(); rusage()-began < 100*time.Millisecond; {
				_, _ = os.Stat("/") // system time too
			}
		})
	}
	threads.Wait()

	before := rusage()
	got, err := cpu([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	// A thread that runs at the same time is accounted for at the next tick.
	if after, slack := rusage(), 10*time.Millisecond; got < before-slack || got > after+slack || got < 100*time.Millisecond-slack {
		t.Errorf("the CPU time is %v; want between %v and %v", got, before, after)
	}
	if _, err := cpu([]int{1 << 22}); err == nil { // larger than any number of a process
		t.Error("a process that is not there has used CPU time")
	}
}
