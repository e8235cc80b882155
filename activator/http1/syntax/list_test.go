package syntax

import (
	"slices"
	"testing"
)

// RFC 9110 section 5.6.1.
func TestEachOption(t *testing.T) {
	for list, want := range map[string][]string{
		"": nil, ",": nil, " \t, ,": nil, "a": {"a"}, " a ": {"a"}, "a,b": {"a", "b"}, ",a,\t,b c ,": {"a", "b c"}, "a;x=1, b": {"a;x=1", "b"},
	} {
		var got []string
		EachOption([]byte(list), func(option []byte) bool {
			got = append(got, string(option))
			return true
		})
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
	n := 0
	EachOption([]byte("a,b,c"), func([]byte) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("%d elements after it was told to stop", n)
	}
}

func TestEqualFoldKnowsOnlyASCII(t *testing.T) {
	if !EqualFold([]byte("kEEP-aLIVE"), "keep-alive") || EqualFold([]byte("\xe2\x84\xaaeep-alive"), "keep-alive") || EqualFold([]byte("keep-aliv"), "keep-alive") {
		t.Error("EqualFold is wrong")
	}
}
