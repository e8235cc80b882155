package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A histogram observes durations for one series, and is exposed both as a classic and as a native histogram. Its
// buckets are those of native histograms of schema 3 (each at most 2^(1/8), or 9 %, wider than the one before), grouped
// in octaves that are made when something falls into them.
//
// It exists because client_golang's own keeps its native buckets in two sync.Maps: measured for durations from 1 µs to 4 s,
// 11.5 KiB where this takes 1.6, although a bound of 50 buckets had made it coarser. Here the number of buckets is bounded
// by the range, 61 µs to 12 days, so nothing is ever made coarser or reset.
type histogram struct {
	sum     atomic.Uint64 // seconds, as the bits of a float64
	low     atomic.Uint64 // observations that are at most lowest
	octaves [octaveCount]atomic.Pointer[octave]
}

// An octave counts what lies between one power of two, exclusive, and the next, inclusive: in each native bucket, and last
// in the part of a native bucket that lies above the octave's classic bound.
type octave [perOctave + 1]atomic.Uint64

const (
	schema    = 3
	perOctave = 1 << schema

	lowestExp   = -14 // 2^-14 s is 61 µs
	octaveCount = 34  // up to 2^20 s, 12 days
	lowest      = 1.0 / (1 << -lowestExp)
)

// bucket returns the number of the native bucket that holds v > lowest, counted from the first one above lowest. What is
// beyond the range goes to the last one.
func bucket(v float64) int {
	above := int(math.Ceil(perOctave*math.Log2(v))) - perOctave*lowestExp
	return min(above, perOctave*octaveCount) - 1
}

// A classicBound cuts the native bucket it falls into in two, so that both forms of a histogram are read from the same
// counters, and agree whenever they are read.
type classicBound struct {
	le     float64 // seconds
	bucket int
}

// A layout holds the classic bounds of a histogram by octave. Where there is none, bucket is -1.
type layout [octaveCount]classicBound

// newLayout places classic bounds: in seconds, above lowest, and each at least twice the one before, so that no octave
// has two.
func newLayout(bounds []float64) *layout {
	l := new(layout)
	for i := range l {
		l[i].bucket = -1
	}
	for _, le := range bounds {
		at := bucket(le)
		l[at/perOctave] = classicBound{le: le, bucket: at}
	}
	return l
}

func (h *histogram) observe(l *layout, d time.Duration) {
	v := d.Seconds()
	h.add(v)
	if v <= lowest {
		h.low.Add(1)
		return
	}
	at := bucket(v)
	i, slot := at/perOctave, at%perOctave
	if bound := &l[i]; at == bound.bucket && v > bound.le {
		slot = perOctave
	}
	o := h.octaves[i].Load()
	if o == nil {
		h.octaves[i].CompareAndSwap(nil, new(octave))
		o = h.octaves[i].Load()
	}
	o[slot].Add(1)
}

func (h *histogram) add(v float64) {
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// metric returns what has been observed. The count is the sum of the buckets that were read, so it agrees with them while
// observations go on.
func (h *histogram) metric(desc *prometheus.Desc, l *layout, created time.Time, labels []string) (prometheus.Metric, error) {
	var (
		sum     = math.Float64frombits(h.sum.Load())
		low     = h.low.Load()
		count   = low
		native  = make(map[int]int64)
		classic = make(map[float64]uint64)
		none    octave
	)
	for i, bound := range l {
		o := h.octaves[i].Load()
		if o == nil {
			o = &none
		}
		for slot := range perOctave {
			at := i*perOctave + slot
			n := o[slot].Load()
			count += n
			if at == bound.bucket {
				classic[bound.le] = count
				above := o[perOctave].Load()
				n += above
				count += above
			}
			if n > 0 {
				// Prometheus counts native buckets from the one whose upper bound is 1.
				native[at+1+perOctave*lowestExp] = int64(n)
			}
		}
	}
	c, err := prometheus.NewConstHistogram(desc, count, sum, classic, labels...)
	if err != nil {
		return nil, err
	}
	n, err := prometheus.NewConstNativeHistogram(desc, count, sum, native, nil, low, schema, lowest, created, labels...)
	if err != nil {
		return nil, err
	}
	return twofold{Metric: n, classic: c}, nil
}

// twofold is a native histogram that has classic buckets as well, which client_golang's constructors do not offer.
type twofold struct {
	prometheus.Metric // native
	classic           prometheus.Metric
}

// Write implements prometheus.Metric.
func (t twofold) Write(out *dto.Metric) error {
	var classic dto.Metric
	if err := t.classic.Write(&classic); err != nil {
		return err
	}
	if err := t.Metric.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = classic.GetHistogram().GetBucket()
	return nil
}
