package syntax

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// decode reads a chunked body whose pieces end at the given offsets, and returns its data, and how many bytes it took.
func decode(t testing.TB, m string, ends ...int) (data string, took int, err error) {
	t.Helper()
	var c Chunks
	var all strings.Builder
	for _, end := range append(ends, len(m)) {
		for {
			skip, n, err := c.Next([]byte(m[took:end]))
			if skip < 0 || n < 0 || took+skip+n > end {
				t.Fatalf("%q: %d and %d bytes of %d", m, skip, n, end-took)
			}
			took += skip
			all.WriteString(m[took : took+n])
			took += n
			if err != nil {
				return all.String(), took, err
			}
			if skip+n == 0 {
				break
			}
		}
		if took != end {
			t.Fatalf("%q: %d bytes of %d are not taken", m, end-took, end)
		}
	}
	return all.String(), took, ErrIncomplete
}

// sameChunksHoweverCut requires that a body gives the same wherever it is cut in two, and when it comes byte by byte.
func sameChunksHoweverCut(t testing.TB, m string) {
	t.Helper()
	want, wantTook, wantErr := decode(t, m)
	var ends []int
	for cut := range len(m) {
		ends = append(ends, cut)
		if got, took, err := decode(t, m, cut); got != want || took != wantTook || !errors.Is(err, wantErr) {
			t.Fatalf("%q cut at %d: %q, %d bytes, %v; and in one piece %q, %d, %v", m, cut, got, took, err, want, wantTook, wantErr)
		}
	}
	if got, took, err := decode(t, m, ends...); got != want || took != wantTook || !errors.Is(err, wantErr) {
		t.Fatalf("%q byte by byte: %q, %d bytes, %v; and in one piece %q, %d, %v", m, got, took, err, want, wantTook, wantErr)
	}
}

// RFC 9112 section 7.1.
func TestChunks(t *testing.T) {
	for m, want := range map[string]string{
		"0\r\n":                                "",
		"5\r\nhello\r\n0\r\n":                  "hello",
		"5\r\nhello\r\n6\r\n world\r\n000\r\n": "hello world",
		"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n":       "01234567890123456789",
		"5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n":                 "hello",
		"5;\r\nhello\r\n0\r\n":                              "hello",
		"5 \t \r\nhello\r\n0 \r\n":                          "hello",
		"0000000000000005\r\nhello\r\n0000000000000000\r\n": "hello",
		"5\r\n0\r\n\r\n\r\n0\r\n":                           "0\r\n\r\n",
		"1;" + strings.Repeat("a", 4092) + "\r\nx\r\n0\r\n": "x",
	} {
		const behind = "\r\nGET /"
		got, took, err := decode(t, m+behind)
		if got != want || took != len(m) || !errors.Is(err, io.EOF) {
			t.Errorf("%.100q: %q, %d bytes, %v", m, got, took, err)
		}
		if len(m) < 100 {
			sameChunksHoweverCut(t, m+behind)
		}
	}
}

func TestMalformedChunksAreRefused(t *testing.T) {
	for m, want := range map[string]error{
		"zz\r\n": errChunkSize, "-5\r\n": errChunkSize, "+5\r\n": errChunkSize, "0x5\r\n": errChunkSize, "5_0\r\n": errChunkSize, "5.0\r\n": errChunkSize,
		"\r\n": errChunkSize, " 5\r\n": errChunkSize, "\t5\r\n": errChunkSize, ";a\r\n": errChunkSize, "5 ;a=b\r\n": errChunkSize, "5 5\r\n": errChunkSize, "\n": errChunkSize,
		"10000000000000005\r\n": errChunkSize, "8000000000000000\r\n": errChunkSize, "FFFFFFFFFFFFFFFF\r\n": errChunkSize, "00000000000000005\r\n": errChunkSize, "\xff\r\n": errChunkSize,
		"5\nhello": errChunkSize, "5\r\rhello": errChunkLine, "5\rhello": errChunkLine, "5;a\nhello": errChunkLine, "5;a\rb\r\n": errChunkLine, "5;a\x00\r\n": errChunkLine, "5 \nhello": errChunkSize, "5\r;\r\n": errChunkLine,
		"4\r\nhello\r\n": errChunkEnd, "6\r\nhello\r\n0": errChunkEnd, "5\r\nhello\n": errChunkEnd, "5\r\nhello\r\r": errChunkEnd, "5\r\nhello0\r\n": errChunkEnd,
		"5;" + strings.Repeat("a", 4093) + "\r\n":                     errChunkLineLong,
		"5" + strings.Repeat(" ", 4095) + "\r\n":                      errChunkLineLong,
		strings.Repeat("1;"+strings.Repeat("a", 4000)+"\r\nx\r\n", 5): errChunkOverhead,
		"7fffffffffffffff\r\n":                                        ErrIncomplete, "5\r\nhell": ErrIncomplete, "5\r\nhello\r\n0\r": ErrIncomplete,
	} {
		if _, _, err := decode(t, m); !errors.Is(err, want) {
			t.Errorf("%.100q: got %v, want %v", m, err, want)
		}
		if len(m) < 100 {
			sameChunksHoweverCut(t, m)
		}
	}
}

func TestSmallChunksMayFollowEachOtherForEver(t *testing.T) {
	for _, chunk := range []string{"1\r\nx\r\n", "0000000000000001\r\nx\r\n", "10;ieof=0123456789\r\n0123456789abcdef\r\n"} {
		if _, _, err := decode(t, strings.Repeat(chunk, 20000)); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%q: %v", chunk, err)
		}
	}
}

func TestDataMayComeByAnotherWay(t *testing.T) {
	var c Chunks
	if skip, data, err := c.Next([]byte("100\r\nabc")); skip != 5 || data != 3 || err != nil || c.Left() != 253 {
		t.Fatalf("%d, %d, %v, %d left", skip, data, err, c.Left())
	}
	c.Took(250)
	if skip, data, err := c.Next([]byte("xyz")); skip != 0 || data != 3 || err != nil || c.Left() != 0 {
		t.Fatalf("%d, %d, %v, %d left", skip, data, err, c.Left())
	}
	if skip, data, err := c.Next([]byte("\r\n2\r\n")); skip != 5 || data != 0 || err != nil || c.Left() != 2 {
		t.Fatalf("%d, %d, %v, %d left", skip, data, err, c.Left())
	}
	c.Took(2)
	if skip, data, err := c.Next([]byte("\r\n0\r\n\r\n")); skip != 5 || data != 0 || !errors.Is(err, io.EOF) || c.Left() != 0 {
		t.Fatalf("%d, %d, %v, %d left", skip, data, err, c.Left())
	}
}
