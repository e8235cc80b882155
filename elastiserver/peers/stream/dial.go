package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

const (
	leastBackOff = 200 * time.Millisecond // half of it at least is waited
	mostBackOff  = 2 * time.Second
	worrying     = 10 * time.Second // a member that cannot be reached for so long is worth a warning
)

// dialer keeps a stream with a member of a greater id than ours. Its goroutine is in keep.
type dialer struct {
	id      string
	changed chan struct{} // holds an element if the addresses are others than they were, or it is a member no more
}

// keep dials for as long as d's pod is a member and ctx has not ended.
func (m *Mesh) keep(ctx context.Context, d *dialer) {
	backOff := leastBackOff
	failing, warned := time.Now(), false
	for try := 0; ; try++ {
		member, ok := m.wanted(ctx, d)
		if !ok {
			return
		}
		if len(member.Addresses) == 0 {
			failing = time.Now()
			select {
			case <-d.changed:
			case <-ctx.Done():
			}
			continue
		}
		opened, err := m.attempt(ctx, member, try)
		logger := m.logger.With(zap.String("peer", member.Name), zap.String("id", member.ID))
		switch {
		case ctx.Err() != nil:
			continue
		case !opened.IsZero():
			failing, warned = time.Now(), false
			if time.Since(opened) > mostBackOff {
				backOff = leastBackOff // it was a stream, not a way of failing
			}
		case !warned && time.Since(failing) > worrying:
			warned = true
			logger.Warn("peer cannot be reached", zap.Error(err))
		default:
			logger.Debug("peer cannot be reached yet", zap.Error(err))
		}
		timer := time.NewTimer(backOff/2 + rand.N(backOff/2))
		select {
		case <-timer.C:
			backOff = min(2*backOff, mostBackOff)
		case <-d.changed:
			backOff = leastBackOff
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// wanted returns how the member is to be dialled now. If not at all, the dialer is forgotten.
func (m *Mesh) wanted(ctx context.Context, d *dialer) (Member, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	member, ok := m.members[d.id]
	if !ok || ctx.Err() != nil {
		delete(m.dialers, d.id)
		return Member{}, false
	}
	return member, true
}

// attempt dials one of the member's addresses (there is one), and serves the stream until it is over. opened is zero if there was none.
func (m *Mesh) attempt(ctx context.Context, member Member, try int) (opened time.Time, err error) {
	peer, c, err := m.call(ctx, member.ID, member.Addresses[try%len(member.Addresses)])
	if err != nil {
		return time.Time{}, err
	}
	opened = time.Now()
	return opened, m.serve(ctx, peer, c)
}

// call does the handshake with a member that we dial.
func (m *Mesh) call(ctx context.Context, id string, address netip.AddrPort) (Peer, *connection, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	token, err := m.options.Token()
	if err != nil {
		return Peer{}, nil, fmt.Errorf("read the token: %w", err)
	}
	config := m.options.TLS().Clone()
	config.NextProtos = []string{"http/1.1"}
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return Peer{}, nil, err
	}
	conn := tls.Client(plain, config)
	c := newConnection(conn)
	stop := context.AfterFunc(ctx, c.cutOff)
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		c.cutOff()
		return Peer{}, nil, fmt.Errorf("shake hands with %v: %w", address, err)
	}
	peer, err := m.introduce(ctx, c, id, config.ServerName, token)
	if err != nil {
		c.cutOff()
		return Peer{}, nil, fmt.Errorf("open a stream with %v: %w", address, err)
	}
	return peer, c, nil
}

// introduce does what is to be done once it is known that c leads to an activator.
func (m *Mesh) introduce(ctx context.Context, c *connection, id, host, token string) (Peer, error) {
	if err := c.ask(ctx, host, token); err != nil {
		return Peer{}, err
	}
	peer, err := c.readHello()
	if err != nil {
		return Peer{}, err
	}
	if peer.ID != id {
		return Peer{}, errors.New("another pod has that address now")
	}
	return peer, c.sendHello(m.own)
}

// ask sends the request for a stream, and reads the answer's head.
func (c *connection) ask(ctx context.Context, host, token string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+Path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	r.Header.Set("User-Agent", "dormouse")
	if err := r.Write(c); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.lines, r)
	if err != nil {
		return err
	}
	_ = answer.Body.Close() // of 101 there is none, and with another status the connection ends
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the answer is %d", answer.StatusCode)
	}
	if answer.ProtoMajor != 1 || !hasToken(answer.Header["Upgrade"], protocol) {
		return errors.New("the answer is an upgrade to something else")
	}
	return nil
}
