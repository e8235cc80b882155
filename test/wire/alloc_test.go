package wire

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/test/engine"
)

// TestAWarmRequestAllocatesLittle counts what the whole process allocates for a request, net/http's own share included; the
// client and the endpoint allocate nothing.
func TestAWarmRequestAllocatesLittle(t *testing.T) {
	most := 8.0 // it is 0, and 6 under the race detector, where pools forget
	if engine.Current() == engine.Stdlib {
		most = 42 // it is 38, and 40 under the race detector
	}
	host, change := ownPorts()
	p := newProxy(t, change)
	p.publish(p.endpoint(benchEndpoint(t, benchAnswer+strings.Repeat("x", 100)), scaling.ProtocolHTTP1))
	p.server.AdoptPorts(map[int32]scaling.Key{firstPort: key})
	p.awaitBound(firstPort)
	byHost, byPort := p.allocations(p.addr), p.allocations(at(host, firstPort))
	t.Logf("%.1f by its host, %.1f by its port", byHost, byPort)
	if byHost > most || byPort > most {
		t.Errorf("a request allocates %.1f times by its host and %.1f times by its port, want at most %.0f", byHost, byPort, most)
	}
}

// allocations returns how often a request to an address makes the process allocate.
func (p *proxy) allocations(address string) float64 {
	p.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	request, buf, end := []byte(benchRequest), make([]byte, 4096), []byte(strings.Repeat("x", 100))
	return testing.AllocsPerRun(500, func() {
		if _, err := c.Write(request); err != nil {
			p.t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], end); {
			m, err := c.Read(buf[n:])
			if err != nil {
				p.t.Fatal(err)
			}
			n += m
		}
	})
}
