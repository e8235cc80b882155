package figures

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var samples []time.Duration
	for i := range 100 {
		samples = append(samples, time.Duration(100-i)*time.Millisecond)
	}
	for q, want := range map[float64]string{0: "1.0", 0.5: "51.0", 0.99: "100", 1: "100"} {
		if got := Milliseconds(Quantile(samples, q)); got != want {
			t.Errorf("the quantile %v is %s ms; want %s", q, got, want)
		}
	}
	if got := Median(nil); got != 0 {
		t.Errorf("the median of nothing is %v; want 0", got)
	}
	if got := Spread(samples); got != "51.0 (1.0–100) ms" {
		t.Errorf("the spread is %q", got)
	}
}

// Each part may be measured alone, and in any order.
func TestEachMeasurementReplacesItsOwnPartOfTheDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	laptop := func(parts ...Part) func() error {
		return func() error { return WriteLaptop(path, "# Benchmarks\n", []string{"Warm", "Bulk", "Cold"}, parts) }
	}
	cluster := func(text string) func() error {
		return func() error { return WriteCluster(path, ClusterHeading+"\n"+text) }
	}
	for i, step := range []struct {
		write func() error
		want  string
	}{
		{laptop(Part{"Cold", "cold 1\n"}), "# Benchmarks\n\n## Cold\n\ncold 1\n"},
		{laptop(Part{"Warm", "\nwarm 1\n\n### GET\n"}), "# Benchmarks\n\n## Warm\n\nwarm 1\n\n### GET\n\n## Cold\n\ncold 1\n"},
		{cluster("cluster 1\n"), "# Benchmarks\n\n## Warm\n\nwarm 1\n\n### GET\n\n## Cold\n\ncold 1\n\n" + ClusterHeading + "\ncluster 1\n"},
		{
			laptop(Part{"Warm", "warm 2\n"}, Part{"Bulk", "bulk 1\n"}),
			"# Benchmarks\n\n## Warm\n\nwarm 2\n\n## Bulk\n\nbulk 1\n\n## Cold\n\ncold 1\n\n" + ClusterHeading + "\ncluster 1\n",
		},
		{
			cluster("cluster 2\n"),
			"# Benchmarks\n\n## Warm\n\nwarm 2\n\n## Bulk\n\nbulk 1\n\n## Cold\n\ncold 1\n\n" + ClusterHeading + "\ncluster 2\n",
		},
		{
			func() error { return WriteLaptop(path, "# Benchmarks\n", []string{"Cold"}, nil) },
			"# Benchmarks\n\n## Cold\n\ncold 1\n\n" + ClusterHeading + "\ncluster 2\n",
		},
	} {
		if err := step.write(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Fatalf("after step %d it is %q, %v; want %q", i+1, got, err, step.want)
		}
	}
}
