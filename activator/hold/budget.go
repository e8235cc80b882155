package hold

import "sync/atomic"

// Budget bounds what is held in the whole process, by count and by bytes. The zero value has no bounds. Its counters are
// atomic: it is the only state that services share.
type Budget struct {
	MaxRequests int64 // zero: no bound
	MaxBytes    int64 // zero: no bound

	requests atomic.Int64
	bytes    atomic.Int64
}

// Held returns how many requests are held now, and the bytes they keep.
func (b *Budget) Held() (requests, bytes int64) { return b.requests.Load(), b.bytes.Load() }

// reserve counts a request, and reports whether there was room for it.
func (b *Budget) reserve(cost int64) bool {
	requests, bytes := b.requests.Add(1), b.bytes.Add(cost)
	if b.MaxRequests > 0 && requests > b.MaxRequests || b.MaxBytes > 0 && bytes > b.MaxBytes {
		b.release(cost)
		return false
	}
	return true
}

// force counts a request that had its place already.
func (b *Budget) force(cost int64) {
	b.requests.Add(1)
	b.bytes.Add(cost)
}

func (b *Budget) release(cost int64) {
	b.requests.Add(-1)
	b.bytes.Add(-cost)
}
