package sock

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func bothForms(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds()[:2] {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

func TestWhatIsAskedIsAnswered(t *testing.T) {
	bothForms(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 64)
		const rounds = 20_000 // many, for an answer may come at any moment while it is asked
		go func() {
			for i := range rounds {
				if err := b.Fill(); err != nil {
					t.Errorf("Fill: %v", err)
					return
				}
				b.In.Skip(b.In.Len())
				for range i % 7 * 50 { // a different moment each time
					_ = time.Now()
				}
				_, _ = b.Write([]byte("answer"))
			}
		}()
		_ = a.SetDeadline(time.Now().Add(30 * time.Second)) // a lost wake-up would end here
		for i := range rounds {
			silent, err := a.Ask([]byte("question"))
			if !silent || err != nil {
				t.Fatalf("Ask %d: %t, %v", i, silent, err)
			}
			for a.In.Len() < len("answer") {
				if err := a.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			a.In.Skip(a.In.Len())
			a.Release()
		}
	})
}

func TestNothingIsAskedWhereSomethingWasSaidOrIsOver(t *testing.T) {
	bothForms(t, func(t *testing.T, k kind) {
		for name, before := range map[string]func(b *Socket){
			"unsolicited bytes": func(b *Socket) { _, _ = b.Write([]byte("x")) },
			"an end":            func(b *Socket) { _ = b.CloseWrite() },
			"a reset":           func(b *Socket) { b.Abort() },
		} {
			a, b := k.pair(t, 64)
			before(b)
			for !a.Readable() && name != "a reset" { // to look at a reset takes it away
				<-time.After(time.Millisecond)
			}
			if name == "a reset" {
				<-time.After(20 * time.Millisecond)
			}
			if silent, err := a.Ask([]byte("question")); silent || err != nil {
				t.Errorf("%s: got %t, %v", name, silent, err)
			}
			if name == "a reset" {
				continue
			}
			_ = b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if err := b.Fill(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the peer got %q, %v", name, b.In.Bytes(), err)
			}
		}
	})
}

func TestALongQuestionIsAskedWhole(t *testing.T) {
	bothForms(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 4096)
		question := strings.Repeat("0123456789", 1<<20) // more than the kernel takes at once
		go func() {
			n := 0
			for n < len(question) {
				if err := b.Fill(); err != nil {
					t.Errorf("Fill: %v", err)
					return
				}
				n += b.In.Len()
				b.In.Skip(b.In.Len())
			}
			_, _ = b.Write([]byte("answer"))
		}()
		if silent, err := a.Ask([]byte(question)); !silent || err != nil || string(a.In.Bytes()) != "answer" {
			t.Errorf("got %t, %v, %q", silent, err, a.In.Bytes())
		}
	})
}

func TestAskingEnds(t *testing.T) {
	bothForms(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, 64)
		time.AfterFunc(20*time.Millisecond, a.Interrupt)
		if silent, err := a.Ask([]byte("question")); !silent || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("interrupted: %t, %v", silent, err)
		}
		a, b = k.pair(t, 64)
		go func() {
			_ = b.Fill()
			_ = b.Close()
		}()
		if silent, err := a.Ask([]byte("question")); !silent || !errors.Is(err, io.EOF) {
			t.Errorf("closed by the peer: %t, %v", silent, err)
		}
	})
}
