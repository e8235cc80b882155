//go:build !linux

package sock

import "errors"

// canSplice: bytes are copied through a buffer.
const canSplice = false

// errNoSplice is not returned.
var errNoSplice = errors.New("splice is not possible")

type (
	drain struct{} // not used
	pump  struct{} // not used
)

// splice is not called.
func (*Socket) splice(*Socket, int64) (int64, error) { return 0, errNoSplice }

// queued returns 0: it is not known.
func queued(uintptr) int { return 0 }
