package sock

import (
	"crypto/rand"
	"errors"
	"io"
	"testing"
)

func TestMuchComesInLargePiecesThoughItCannotBeSeenComing(t *testing.T) {
	const size, much = 8 << 10, 1 << 20
	everyKind(t, func(t *testing.T, k kind) {
		a, b := k.pair(t, size)
		sent := make([]byte, much)
		_, _ = rand.Read(sent)
		done := make(chan error, 1)
		go func() {
			_, err := a.Write(sent)
			done <- errors.Join(err, a.CloseWrite())
		}()
		fills := 0
		var got []byte
		for {
			err := b.Fill()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			fills++
			got = append(got, b.In.Bytes()...)
			b.In.Skip(b.In.Len())
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if string(got) != string(sent) {
			t.Errorf("got %d bytes, or others", len(got))
		}
		if fills > much/(1<<10) {
			t.Errorf("in %d pieces", fills)
		}
	})
}
