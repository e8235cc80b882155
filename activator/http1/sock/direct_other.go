//go:build !linux || race || msan || asan

package sock

import "errors"

// canDirect: package net makes the system calls.
const canDirect = false

// fillDirect is not called.
func (*Socket) fillDirect() error { return errors.ErrUnsupported }

// askDirect is not called.
func (*Socket) askDirect([]byte) (silent bool, err error) { return false, errors.ErrUnsupported }

// receive is not called.
func (*Socket) receive(uintptr) (done bool) { return true }

// writeDirect is not called.
func (*Socket) writeDirect(_, _ []byte) (int, error) { return 0, errors.ErrUnsupported }

// send is not called.
func (*Socket) send(uintptr) (done bool) { return true }
