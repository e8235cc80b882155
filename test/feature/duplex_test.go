package feature

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestBodiesFlowBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, []string{
		app(t, "one", []string{"--protocol=http1", "--listen-delay=50ms"}),
		app(t, "two", []string{"--protocol=h2c", "--listen-delay=50ms"}, "endpoint: {protocol: H2C}"),
	})
	for name, client := range clients(t) {
		for _, service := range []string{"one", "two"} {
			t.Run(name+" "+service, func(t *testing.T) {
				d := d.in(t)
				upload, body := io.Pipe()
				defer body.Close()
				resp, err := client.Do(d.request(t.Context(), http.MethodPost, service, "/echo", upload)) // answered before the body begins
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				// Each message comes back before the next is sent; the large ones are more than all buffers on the way together.
				for i := range 20 {
					message := fmt.Sprintf("message %d", i)
					if i%10 == 9 {
						message = strings.Repeat("x", 16<<20)
					}
					sent := make(chan error, 1)
					go func() {
						_, err := io.WriteString(body, message)
						sent <- err
					}()
					got := make([]byte, len(message))
					if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != message {
						t.Fatalf("message %d: %d bytes, %v", i, len(got), err)
					}
					if err := <-sent; err != nil {
						t.Fatal(err)
					}
				}
				_ = body.Close()
				if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
					t.Errorf("behind the last message: %d bytes, %v", len(rest), err)
				}
			})
		}
	}
}
