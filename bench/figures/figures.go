// Package figures is what the benchmarks have in common: numbers of samples, what they were taken on, and the document
// that they are written to.
package figures

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Median returns the middle of samples, the larger one of two; 0 where there are none.
func Median(samples []time.Duration) time.Duration { return Quantile(samples, 0.5) }

// Quantile returns the sample below which the part q of the samples lies; 0 where there are none.
func Quantile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Spread prints the median of samples in milliseconds, with the smallest and the largest.
func Spread(samples []time.Duration) string {
	if len(samples) == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%s–%s) ms", Milliseconds(Median(samples)), Milliseconds(slices.Min(samples)), Milliseconds(slices.Max(samples)))
}

// Milliseconds prints a duration as a number of milliseconds: with a digit behind the point below 100.
func Milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 100 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// CPU is the name of this machine's processor.
func CPU() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "an unknown processor"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, model, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "an unknown processor"
}

// Kernel is the kernel that runs here, such as "Linux 6.1.0".
func Kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "an unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(release))
}

// ClusterHeading begins the part of the document that make bench-cold writes. What is before it is make bench's.
const ClusterHeading = "## Cold starts on Kubernetes\n"

// Part is one of the document's: what is below a heading of the second level.
type Part struct {
	Heading string // without "## "
	Text    string // without the heading
}

// WriteLaptop replaces in a document the parts that make bench measured, and the introduction. Other parts stay, unless the
// document's order has no such heading. A part that is new goes where the order has it. What make bench-cold wrote comes
// last, and stays.
func WriteLaptop(path, introduction string, order []string, measured []Part) error {
	laptop, cluster, err := split(path)
	if err != nil {
		return err
	}
	texts := make(map[string]string)
	for i, part := range strings.Split("\n"+laptop, "\n## ") {
		if heading, text, found := strings.Cut(part, "\n"); found && i > 0 {
			texts[heading] = text
		}
	}
	for _, part := range measured {
		texts[part.Heading] = part.Text
	}
	var all strings.Builder
	fmt.Fprintln(&all, strings.TrimSpace(introduction))
	for _, heading := range order {
		if text, ok := texts[heading]; ok {
			fmt.Fprintf(&all, "\n## %s\n\n%s\n", heading, strings.TrimSpace(text))
		}
	}
	return write(path, all.String(), cluster)
}

// WriteCluster replaces what make bench-cold wrote into a document; text begins with ClusterHeading.
func WriteCluster(path, text string) error {
	laptop, _, err := split(path)
	if err != nil {
		return err
	}
	return write(path, laptop, text)
}

func split(path string) (laptop, cluster string, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	laptop, cluster, found := strings.Cut(string(text), ClusterHeading)
	if found {
		cluster = ClusterHeading + cluster
	}
	return laptop, cluster, nil
}

func write(path, laptop, cluster string) error {
	text := strings.TrimRight(laptop, "\n") + "\n"
	if cluster != "" {
		text += "\n" + cluster
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // a document
}
