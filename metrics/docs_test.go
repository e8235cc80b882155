package metrics_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/dormouse-dev/dormouse/metrics"
)

const docs = "../docs/metrics.md"

// documented is one row of docs/metrics.md: what it says of one metric.
type documented struct {
	kind   string              // counter, gauge or histogram
	labels map[string][]string // besides namespace and service, with their words, sorted; no words: any
	series int                 // of one service; 0: of the process
}

// free lists the labels whose words are not a closed set.
func free(label string) bool {
	return slices.Contains([]string{"version", "commit", "goversion"}, label)
}

func TestDocsListWhatAScrapeDelivers(t *testing.T) {
	m, registry := newMetrics(t, metrics.Options{ServiceLabel: true})
	observe(m, "web", "shop")
	exercise(m.Service("web", "shop"))

	want := make(map[string]documented)
	for name, family := range gather(t, registry) {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			want[name] = delivered(t, family)
		}
	}
	got := readDocs(t)
	for name := range maps.Keys(got) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is documented, and no scrape delivers it", name)
		}
	}
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("%s is delivered, and not documented", name)
		} else if fmt.Sprint(g) != fmt.Sprint(w) {
			t.Errorf("%s is documented as %v, and is %v", name, g, w)
		}
	}
}

// delivered tells of a metric what its row should.
func delivered(t *testing.T, family *dto.MetricFamily) documented {
	t.Helper()
	d := documented{kind: strings.ToLower(family.GetType().String()), labels: make(map[string][]string)}
	for _, metric := range family.GetMetric() {
		l := labels(metric)
		if _, ok := l["namespace"]; ok != (l["service"] != "") {
			t.Errorf("%s has one of the labels namespace and service: %v", family.GetName(), l)
		} else if ok {
			d.series += seriesIn(metric)
		}
		for label, word := range l {
			switch {
			case label == "namespace" || label == "service":
			case free(label):
				d.labels[label] = nil
			case !slices.Contains(d.labels[label], word):
				d.labels[label] = append(d.labels[label], word)
				slices.Sort(d.labels[label])
			}
		}
	}
	return d
}

// rows returns the cells of the table rows of docs/metrics.md whose first cell matches first.
func rows(t *testing.T, first *regexp.Regexp) [][]string {
	t.Helper()
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	var found [][]string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if first.MatchString(cells[0]) && len(cells) > 1 {
			found = append(found, cells)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no table with a row for %s", docs, first)
	}
	return found
}

func readDocs(t *testing.T) map[string]documented {
	t.Helper()
	quoted := regexp.MustCompile("`([^`]+)`")
	list := make(map[string]documented)
	for _, cells := range rows(t, regexp.MustCompile("^`dormouse_")) {
		d := documented{kind: cells[1], labels: make(map[string][]string)}
		// `label`: `word`, `word`; `label`: `word`  or, where any word may come: `label`, `label`
		for part := range strings.SplitSeq(cells[2], ";") {
			var words []string
			for _, match := range quoted.FindAllStringSubmatch(part, -1) {
				words = append(words, match[1])
			}
			switch {
			case len(words) == 0:
			case free(words[0]):
				for _, label := range words {
					d.labels[label] = nil
				}
			default:
				slices.Sort(words[1:])
				d.labels[words[0]] = words[1:]
			}
		}
		if len(cells) > 4 {
			d.series = number(t, cells[4])
		}
		list[strings.Trim(cells[0], "`")] = d
	}
	return list
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", docs, err)
	}
	return n
}
