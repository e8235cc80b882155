package tcp

import (
	"errors"
	"syscall"
)

// Scarce reports whether it is this machine that has run out of something which others will give back, such as descriptors,
// ports or buffers.
func Scarce(err error) bool {
	for _, errno := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
