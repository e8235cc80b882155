package local

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func split(t *testing.T, chunks ...string) []string {
	t.Helper()
	var got []string
	l := &lines{log: func(line string) { got = append(got, line) }}
	for _, chunk := range chunks {
		if n, err := l.Write([]byte(chunk)); n != len(chunk) || err != nil {
			t.Errorf("Write(%d bytes) = %d, %v", len(chunk), n, err)
		}
	}
	l.flush()
	return got
}

func TestOutputIsCutIntoLines(t *testing.T) {
	got := split(t, "one\ntw", "o\r\n", "\n", "three", "", " and no newline")
	if want := []string{"one", "two", "", "three and no newline"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestALongLineIsCutOnceAndTheNextIsWhole(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		chunks []string
		want   []string
	}{
		{[]string{long + "\nnext\n"}, []string{long, "next"}},
		{[]string{long + "y\nnext\n"}, []string{long + cutMark, "next"}},
		{[]string{long, "y", long, long, "z\nnext\n"}, []string{long + cutMark, "next"}},
		{[]string{long + long}, []string{long + cutMark}},
	} {
		if got := split(t, c.chunks...); !slices.Equal(got, c.want) {
			t.Errorf("%d chunks: got %d lines, want %d", len(c.chunks), len(got), len(c.want))
		}
	}
}

func TestAnEndlessLineTakesLittleMemory(t *testing.T) {
	l := &lines{log: func(string) {}}
	chunk := []byte(strings.Repeat("x", 64<<10))
	for range 1000 {
		if _, err := l.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if c := cap(l.line); c > 2*maxLine {
		t.Errorf("64 MB without a newline: %d bytes are kept", c)
	}
}

func TestTheTailKeepsTheLastLinesShort(t *testing.T) {
	var last tail
	for n := range 50 {
		last.add(fmt.Sprintf("line %d", n))
	}
	last.add(strings.Repeat("x", 10*tailLine))
	got := strings.Split(last.String(), "\n")
	if len(got) != tailSize || got[0] != "line 31" || got[tailSize-1] != strings.Repeat("x", tailLine)+cutMark {
		t.Errorf("got %d lines, the first %q, the last of %d bytes", len(got), got[0], len(got[len(got)-1]))
	}
}
