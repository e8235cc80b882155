package activator

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

func TestAListenerClosesAlthoughClientsNeverCeaseToConnect(t *testing.T) {
	socket, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(socket, newConnections(1000))
	ceased := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(ceased)
	for range 16 {
		clients.Go(func() {
			for {
				select {
				case <-ceased:
					return
				default:
				}
				if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", socket.Addr().String()); err == nil {
					_ = c.Close()
				}
			}
		})
	}
	accepted := 0
	var stopped time.Time
	for ; ; accepted++ {
		c, err := l.Accept()
		if errors.Is(err, errClosing) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		<-time.After(2 * time.Millisecond) // more slowly than they connect
		switch {
		case accepted == 20:
			l.stop()
			stopped = time.Now()
		case accepted > 20 && time.Since(stopped) > 20*acceptMost:
			t.Fatalf("still accepting %v after it was told to stop", time.Since(stopped))
		}
	}
	if accepted < 21 {
		t.Errorf("got %d connections, want those that were there when it was told to stop", accepted)
	}
}
