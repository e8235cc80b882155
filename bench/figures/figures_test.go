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

// Either benchmark may be run alone, and in any order.
func TestEachBenchmarkReplacesItsOwnPartOfTheDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	steps := []struct {
		write      func(path, text string) error
		text, want string
	}{
		{WriteLaptop, "# Benchmarks\n\nwarm 1\n", "# Benchmarks\n\nwarm 1\n"},
		{WriteCluster, ClusterHeading + "\ncluster 1\n", "# Benchmarks\n\nwarm 1\n\n" + ClusterHeading + "\ncluster 1\n"},
		{WriteLaptop, "# Benchmarks\n\nwarm 2\n", "# Benchmarks\n\nwarm 2\n\n" + ClusterHeading + "\ncluster 1\n"},
		{WriteCluster, ClusterHeading + "\ncluster 2\n", "# Benchmarks\n\nwarm 2\n\n" + ClusterHeading + "\ncluster 2\n"},
	}
	for i, step := range steps {
		if err := step.write(path, step.text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Fatalf("after step %d it is %q, %v; want %q", i+1, got, err, step.want)
		}
	}
}
