//go:build !unix

package sock

import (
	"errors"
	"syscall"
)

// canPeek: the system is not asked whether there is something to be read.
const canPeek = false

// peeker is not used.
type peeker struct{}

// HungUp reports false: it is not known.
func (*Socket) HungUp() bool { return false }

// peek is not called.
func (*Socket) peek() *peeker { return nil }

// await is not called.
func (*peeker) await(syscall.RawConn) error { return errors.ErrUnsupported }

// readable is not called.
func (*peeker) readable(syscall.RawConn) bool { return false }

// available is not called.
func (*peeker) available(syscall.RawConn) int { return 0 }
