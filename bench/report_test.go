package main

import (
	"errors"
	"testing"
)

// Rounds differ more than those who are compared: what was slow in one round was so for all.
func TestARatioComparesWithinARound(t *testing.T) {
	to := ratios([]float64{10, 31, 11}, []float64{10, 30, 10})
	if got, want := spread(to, "%.2f"), "1.03 (1.00–1.10)"; got != want {
		t.Errorf("the ratio is %s; want %s", got, want)
	}
}

func TestSectionsAreChosenByName(t *testing.T) {
	all := []section{{name: "warm"}, {name: "bulk"}, {name: "cold"}}
	for only, want := range map[string]string{"": "warm, bulk, cold", "cold,warm": "warm, cold", "bulk": "bulk"} {
		if got, err := choose(all, only); err != nil || names(got) != want {
			t.Errorf("%q: %s, %v; want %s", only, names(got), err, want)
		}
	}
	if got, err := choose(all, "warm,tepid"); !errors.Is(err, errSection) {
		t.Errorf("a section that is not there: %s, %v", names(got), err)
	}
}
