package syntax

import "testing"

// wrk is the smallest request that load generators send.
const wrk = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

func BenchmarkRequest(b *testing.B) {
	for name, m := range map[string]string{"browser": browser, "wrk": wrk} {
		b.Run(name, func(b *testing.B) { benchmark(b, new(Request), m) })
	}
}

func BenchmarkResponse(b *testing.B) { benchmark(b, new(Response), answer) }

func benchmark(b *testing.B, p parser, m string) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(int64(len(m)))
	message := []byte(m)
	var l Limits
	for b.Loop() {
		p.Reset()
		if err := p.Parse(message, &l); err != nil {
			b.Fatal(err)
		}
	}
}
