package metrics_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/dormouse-dev/dormouse/metrics"
)

// What our histogram exposes is compared with what client_golang's own makes of the same observations.
func TestHistogramsAreThoseOfTheClientLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // a fixed seed, so that a failure can be repeated
	durations := map[string]func() time.Duration{
		"zero":                 func() time.Duration { return 0 },
		"one value":            func() time.Duration { return 1700 * time.Millisecond },
		"warm requests":        func() time.Duration { return time.Duration(random.ExpFloat64() * float64(time.Millisecond)) },
		"cold starts":          func() time.Duration { return time.Duration((1 + random.ExpFloat64()) * float64(time.Second)) },
		"every order":          func() time.Duration { return time.Duration(math.Exp2(random.Float64() * 49.5)) },
		"powers of two":        func() time.Duration { return time.Second >> random.IntN(9) },
		"classic bounds":       func() time.Duration { return 5 * time.Duration(math.Pow10(6+random.IntN(4))) },
		"about classic bounds": func() time.Duration { return 100*time.Millisecond + time.Duration(random.IntN(3)) - 1 },
	}
	for name, next := range durations {
		t.Run(name, func(t *testing.T) {
			m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
			library := prometheus.NewHistogram(prometheus.HistogramOpts{
				Name: "library", Help: "Library.",
				Buckets:                     []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
				NativeHistogramBucketFactor: 1.1, NativeHistogramZeroThreshold: 1.0 / (1 << 14),
			})
			for range 5000 {
				d := next()
				m.Service("web", "shop").Request(200, d)
				library.Observe(d.Seconds())
			}
			var metric dto.Metric
			if err := library.Write(&metric); err != nil {
				t.Fatal(err)
			}
			want, got := metric.GetHistogram(), gather(t, registry)["dormouse_request_duration_seconds"].GetMetric()[0].GetHistogram()
			want.CreatedTimestamp, got.CreatedTimestamp = nil, nil
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestAHistogramOutlivesAbsurdDurations(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		m.Service("web", "shop").Request(200, d)
	}
	h := gather(t, registry)["dormouse_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 5 || h.GetZeroCount() != 4 {
		t.Errorf("%d observations, %d of them about zero; want 5 and 4", h.GetSampleCount(), h.GetZeroCount())
	}
}
