package edges

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dormouse-dev/dormouse/test/engine"
)

const (
	// flooding is how long a flood lasts, unless it is ended before.
	flooding = 400 * time.Millisecond

	// floodBound is how much memory one connection may make the activator take. The race detector's share is most of it.
	floodBound = 160 << 20
)

// flood is what a client of HTTP/2 sends once, and then over and over: begin and again get the number of the round.
type flood struct {
	begin func(f *flooder) error
	again func(f *flooder, round uint32) error
	// unread: the client reads nothing of what it is sent.
	unread bool
	// ends: the connection must be ended before the flood is over.
	ends bool
}

// flooder writes frames into a buffer, which is sent as a whole.
type flooder struct {
	*http2.Framer
	out strings.Builder
}

func (f *flooder) Write(p []byte) (int, error) { return f.out.Write(p) }

// ask opens a stream with a request for the page of a service, and fields.
func (f *flooder) ask(stream uint32, service string, end, whole bool, fields ...string) error {
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSizeLimit(0)
	for i, all := 0, append([]string{":method", "GET", ":scheme", "http", ":authority", service + ".default", ":path", "/"}, fields...); i < len(all); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndStream: end, EndHeaders: whole})
}

func floods() map[string]flood {
	nothing := func(*flooder) error { return nil }
	return map[string]flood{
		"settings": {begin: nothing, again: func(f *flooder, n uint32) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n & 0xffff})
		}},
		"settings, unread": {begin: nothing, again: func(f *flooder, _ uint32) error { return f.WriteSettings() }, unread: true},
		"table sizes": {begin: nothing, again: func(f *flooder, n uint32) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: n << 31 >> 1})
		}},
		"pings":         {begin: nothing, again: func(f *flooder, _ uint32) error { return f.WritePing(false, [8]byte{}) }},
		"pings, unread": {begin: nothing, again: func(f *flooder, _ uint32) error { return f.WritePing(false, [8]byte{}) }, unread: true, ends: true},
		"ping answers":  {begin: nothing, again: func(f *flooder, _ uint32) error { return f.WritePing(true, [8]byte{}) }},
		"rapid resets": {begin: nothing, again: func(f *flooder, n uint32) error {
			return errors.Join(f.ask(2*n+1, "shop", true, true), f.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}},
		"rapid resets of held requests": {begin: nothing, again: func(f *flooder, n uint32) error {
			return errors.Join(f.ask(2*n+1, "sleeper", true, true), f.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}},
		"rapid resets, unread": {begin: nothing, again: func(f *flooder, n uint32) error {
			return errors.Join(f.ask(2*n+1, "shop", true, true), f.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}, unread: true},
		"made-you-reset": {begin: nothing, again: func(f *flooder, n uint32) error { // the server itself is brought to reset
			return errors.Join(f.ask(2*n+1, "shop", false, true), f.WriteRawFrame(http2.FrameWindowUpdate, 0, 2*n+1, make([]byte, 4)))
		}},
		"streams that nobody ends": {begin: nothing, again: func(f *flooder, n uint32) error { return f.ask(2*n+1, "sleeper", false, true) }},
		"continuations": {begin: func(f *flooder) error { return f.ask(1, "shop", true, false) }, again: func(f *flooder, n uint32) error {
			return f.WriteContinuation(1, false, []byte(fmt.Sprintf("\x00\x08x-%06d\x01a", n%1e6)))
		}, ends: true},
		"empty continuations": {begin: func(f *flooder) error { return f.ask(1, "shop", true, false) }, again: func(f *flooder, _ uint32) error {
			return f.WriteContinuation(1, false, nil)
		}},
		"empty data": {begin: func(f *flooder) error { return f.ask(1, "sleeper", false, true) }, again: func(f *flooder, _ uint32) error {
			return f.WriteData(1, false, nil)
		}},
		"padding": {begin: func(f *flooder) error { return f.ask(1, "sleeper", false, true) }, again: func(f *flooder, _ uint32) error {
			return f.WriteDataPadded(1, false, nil, make([]byte, 200))
		}},
		"windows": {begin: func(f *flooder) error { return f.ask(1, "sleeper", false, true) }, again: func(f *flooder, _ uint32) error {
			return f.WriteWindowUpdate(1, 1)
		}},
		"priorities": {begin: nothing, again: func(f *flooder, n uint32) error {
			return f.WritePriority(2*n+1, http2.PriorityParam{StreamDep: 2*n + 3, Weight: byte(n)})
		}},
		"unknown frames": {begin: nothing, again: func(f *flooder, n uint32) error { return f.WriteRawFrame(0xf0, 0, n&0xff, make([]byte, 100)) }},
		"zero window": {begin: func(f *flooder) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		}, again: func(f *flooder, n uint32) error { return f.ask(2*n+1, "shop", true, true) }},
		"header bombs": {begin: func(f *flooder) error { // one field of 4,000 bytes in the table, then a reference to it over and over
			return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, EndStream: true, EndHeaders: true,
				BlockFragment: []byte("\x82\x86\x84\x40\x01x\x7f" + string(binary.AppendUvarint(nil, 3900-127)) + strings.Repeat("b", 3900)),
			}))
		}, again: func(f *flooder, n uint32) error {
			return f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*n + 3, EndStream: true, EndHeaders: true, BlockFragment: []byte("\x82\x86\x84" + strings.Repeat("\xbe", 8000)),
			})
		}},
	}
}

// TestFloodsOfHTTP2HarmNobodyElse: whoever is flooded goes on serving others, in bounded memory, and is rid of it when the
// client has gone.
func TestFloodsOfHTTP2HarmNobodyElse(t *testing.T) {
	if engine.Current() == engine.Stdlib {
		t.Log("HTTP/2 is served by the same engine: once is enough")
		return
	}
	d := start(t, options{services: []string{app(t, "shop"), asleep(t, "sleeper")}})
	d.probe("shop")
	goroutines := d.metric("go_goroutines")
	for name, attack := range floods() {
		t.Run(name, func(t *testing.T) {
			sub := *d
			sub.t = t
			before, _ := sub.resident()
			var rounds uint32
			var ended error
			longest := sub.probed("shop", func() { rounds, ended = sub.flood(attack) })
			after, _ := sub.resident()
			t.Logf("%d rounds, then %v; %d MiB more memory; the slowest bystander took %v", rounds, ended, (after-before)>>20, longest)
			if after-before > floodBound {
				t.Errorf("it took %d MiB of memory", (after-before)>>20)
			}
			if attack.ends && ended == nil {
				t.Error("the connection goes on")
			}
			sub.awaitGoroutines(goroutines)
		})
	}
	eventually(t, "nothing is held", func() bool { return d.metric("dormouse_process_held_requests") == 0 })
}

// flood attacks until the connection is ended, or long enough. What keeps a client from sending more is no end.
func (d *dormouse) flood(attack flood) (rounds uint32, ended error) {
	c, err := net.Dial("tcp", d.http)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(flooding))
	if attack.ends {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	if !attack.unread {
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
	f := new(flooder)
	f.Framer = http2.NewFramer(f, nil)
	f.AllowIllegalWrites = true
	f.out.WriteString(http2.ClientPreface)
	if err := errors.Join(f.WriteSettings(), attack.begin(f)); err != nil {
		return 0, err
	}
	for {
		for range 100 {
			if err := attack.again(f, rounds); err != nil {
				return rounds, err
			}
			rounds++
		}
		_, err := io.WriteString(c, f.out.String())
		f.out.Reset()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return rounds, nil
		case err != nil:
			return rounds, err
		}
	}
}

// TestSilentClientsOfHTTP2AreEnded: who has sent the preface and no SETTINGS has as long as for a header.
func TestSilentClientsOfHTTP2AreEnded(t *testing.T) {
	t.Parallel()
	d := start(t, options{services: []string{app(t, "shop")}, args: []string{"--header-timeout=500ms", "--keep-alive=1s"}})
	for name, sent := range map[string]string{
		"no SETTINGS":      http2.ClientPreface,
		"half of SETTINGS": http2.ClientPreface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03",
		"half of a header": http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82",
		"nothing more":     http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := *d
			sub.t = t
			c := sub.dial()
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err := io.Copy(io.Discard, c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is open after %v", time.Since(began))
			}
			t.Logf("it ended after %v", time.Since(began))
		})
	}
}
