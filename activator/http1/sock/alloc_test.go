//go:build linux && !race

package sock

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestWarmSocketsDoNotAllocate(t *testing.T) {
	for _, k := range kinds()[:2] {
		t.Run(k.name, func(t *testing.T) {
			a, b := k.pair(t, 4096)
			c, d := k.pair(t, 4096)
			head, body := make([]byte, 200), make([]byte, 1000)
			per := testing.AllocsPerRun(200, func() {
				_, err := a.Write(head)
				must(t, err)
				must(t, b.Fill())
				b.In.Skip(b.In.Len())
				b.Release()
				must(t, b.WriteTwo(head, body))
				for a.In == nil || a.In.Len() < 1200 {
					must(t, a.Fill())
				}
				a.In.Skip(1200)
				a.Release()
				if a.Readable() {
					t.Error("readable")
				}
				_, err = a.Write(body)
				must(t, err)
				must(t, b.Await())
				if b.Available() != 1000 {
					t.Error("not available")
				}
				_, err = b.CopyTo(c, 1000)
				must(t, err)
				must(t, d.Fill())
				d.In.Skip(1000)
				d.Release()
			})
			if per > 0 {
				t.Errorf("%v allocations", per)
			}
		})
	}
}

// BenchmarkPingPong sends 100 bytes there and 300 back: what a request costs in reads and writes on one of its sides.
func BenchmarkPingPong(b *testing.B) {
	for name, portable := range map[string]bool{"direct": false, "portable": true} {
		b.Run(name, func(b *testing.B) {
			client, server := tcpPair(b)
			pool := NewPool(8192)
			x, y := New(client, client, pool, portable), New(server, server, pool, portable)
			go func() {
				out := make([]byte, 300)
				for y.Fill() == nil {
					y.In.Skip(y.In.Len())
					y.Release()
					_, _ = y.Write(out)
				}
			}()
			out := make([]byte, 100)
			defer reportCPU(b)()
			for b.Loop() {
				_, err := x.Write(out)
				must(b, err)
				must(b, x.Fill())
				x.In.Skip(x.In.Len())
				x.Release()
			}
			_ = x.Close()
		})
	}
	b.Run("net.Conn", func(b *testing.B) {
		client, server := tcpPair(b)
		echo := func(c net.Conn, out, in []byte) error {
			if _, err := c.Write(out); err != nil {
				return err
			}
			_, err := c.Read(in)
			return err
		}
		go func() {
			out, in := make([]byte, 300), make([]byte, 8192)
			if _, err := server.Read(in); err != nil {
				return
			}
			for echo(server, out, in) == nil {
			}
		}()
		out, in := make([]byte, 100), make([]byte, 8192)
		defer reportCPU(b)()
		for b.Loop() {
			must(b, echo(client, out, in))
		}
		_ = client.Close()
	})
}

// BenchmarkCopy moves a MiB per round, spliced and by net's own ReadFrom and through a buffer.
func BenchmarkCopy(b *testing.B) {
	const size = 1 << 20
	copies := map[string]func(to, from *Socket) (int64, error){
		"splice": func(to, from *Socket) (int64, error) { return from.CopyTo(to, size) },
		"net":    func(to, from *Socket) (int64, error) { return to.tcp.ReadFrom(&io.LimitedReader{R: from.tcp, N: size}) },
		"buffer": func(to, from *Socket) (int64, error) {
			from.plain = false
			return from.CopyTo(to, size)
		},
	}
	for _, name := range []string{"splice", "net", "buffer"} {
		b.Run(name, func(b *testing.B) {
			c1, s1 := tcpPair(b)
			c2, s2 := tcpPair(b)
			pool := NewPool(32 << 10)
			from, to := New(s1, s1, pool, false), New(c2, c2, pool, false)
			go func() {
				p := make([]byte, 64<<10)
				for {
					if _, err := c1.Write(p); err != nil {
						return
					}
				}
			}()
			go func() {
				p := make([]byte, 64<<10)
				for {
					if _, err := s2.Read(p); err != nil {
						return
					}
				}
			}()
			b.SetBytes(size)
			defer reportCPU(b)()
			for b.Loop() {
				for left := int64(size); left > 0; {
					n, err := copies[name](to, from)
					must(b, err)
					left -= n
				}
			}
			_, _ = from.Close(), to.Close()
		})
	}
}

// reportCPU adds the processor's time of the whole process, both ends included: elapsed time says little on a busy machine.
func reportCPU(b *testing.B) (report func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
