package stream

import (
	"bytes"
	"errors"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
)

// Receiver is told what other activators say: a [peers.Fleet].
type Receiver interface {
	Connected(id peers.PeerID, l peers.Link)
	Received(id peers.PeerID, m peers.Message)
	Disconnected(id peers.PeerID)
}

var _ Receiver = (*peers.Fleet)(nil)

// Messages returns a Handler that reads lines as messages, for r. A line that is none ends its stream; one of a kind that
// is not known is passed over, as an activator of a newer version may send it.
func Messages(r Receiver) Handler { return messages{r} }

type messages struct{ receiver Receiver }

// Connected implements [Handler].
func (h messages) Connected(peer Peer, link Link) {
	h.receiver.Connected(idOf(peer), messageLink{link})
}

// Received implements [Handler].
func (h messages) Received(peer Peer, line []byte) error {
	m, err := peers.Unmarshal(line)
	switch {
	case errors.Is(err, peers.ErrUnknownMessage):
		return nil
	case err != nil:
		return err
	}
	h.receiver.Received(idOf(peer), m)
	return nil
}

// Disconnected implements [Handler].
func (h messages) Disconnected(peer Peer) { h.receiver.Disconnected(idOf(peer)) }

func idOf(peer Peer) peers.PeerID { return peers.NewPeerID(peer.ID, peer.Incarnation) }

// messageLink sends messages as lines.
type messageLink struct{ link Link }

var _ peers.Link = messageLink{}

// Send implements [peers.Link]. A message that cannot be a line ends the stream: what comes after it would be misunderstood.
func (l messageLink) Send(m peers.Message) error {
	line, err := m.Marshal()
	if err != nil {
		l.link.Close()
		return err
	}
	return l.link.Send(bytes.TrimSuffix(line, []byte{'\n'}))
}
