package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dormouse-dev/dormouse/scaling"
)

// MaxLine is the most bytes that a message takes as a line, its end included.
const MaxLine = 1 << 20

const (
	// idsPerMessage and targetsPerMessage keep a message below MaxLine, with names as long as Kubernetes allows them.
	idsPerMessage     = 3000
	targetsPerMessage = 1000
)

var (
	// ErrUnknownMessage is returned for a message of a kind that this version does not know. It is to be ignored: a newer
	// version may have sent it.
	ErrUnknownMessage = errors.New("unknown message")
	// errMalformed is for what no version sends.
	errMalformed = errors.New("malformed message")
)

// PeerID names one process of an activator: the pod that it runs in and, as a container may start again in its pod,
// which of its starts that is. [NewPeerID] makes one.
type PeerID string

// NewPeerID returns the id of a process in the pod with that UID. incarnation differs for each start, and has no slash.
func NewPeerID(podUID, incarnation string) PeerID { return PeerID(podUID + "/" + incarnation) }

// Pod returns the UID of the pod that the process runs in.
func (p PeerID) Pod() string {
	if i := strings.LastIndexByte(string(p), '/'); i >= 0 {
		return string(p[:i])
	}
	return string(p)
}

// Message is what activators tell each other: exactly one field is set. Fields that are not known are ignored, so that
// activators of different versions understand each other. As a line it is one JSON object.
type Message struct {
	Lead    *Lead    `json:"lead,omitempty"`
	Welcome *Welcome `json:"welcome,omitempty"`
	Open    *Open    `json:"open,omitempty"`

	Activity  *Activity  `json:"activity,omitempty"`
	ColdStart *ColdStart `json:"coldStart,omitempty"`

	Fence   *Fence   `json:"fence,omitempty"`
	Ack     *Ack     `json:"ack,omitempty"`
	Refuse  *Refuse  `json:"refuse,omitempty"`
	Revoke  *Revoke  `json:"revoke,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`

	Sleep  *Sleep  `json:"sleep,omitempty"`
	Answer *Answer `json:"answer,omitempty"`

	Borrow *Borrow `json:"borrow,omitempty"`
	Cancel *Cancel `json:"cancel,omitempty"`
	Lend   *Lend   `json:"lend,omitempty"`
	Return *Return `json:"return,omitempty"`
}

// Lead says that the sender leads, or that it does no longer.
type Lead struct {
	Term int64 `json:"term"`
	Over bool  `json:"over,omitempty"`
}

// Welcome is a leader's answer to whoever has connected: the fences that are up at this moment.
type Welcome struct {
	Term   int64 `json:"term"`
	Fences []Up  `json:"fences,omitempty"`
}

// Up is a fence without an outcome.
type Up struct {
	Epoch  scaling.Epoch `json:"epoch"`
	Target Target        `json:"target"`
}

// Open is said by everybody to everybody on connecting, and to a new leader: the fences of others whose outcome the sender does not know, and
// the endpoints that must not be used any more.
type Open struct {
	Holds     []Up        `json:"holds,omitempty"`
	Condemned []Condemned `json:"condemned,omitempty"`
	More      bool        `json:"more,omitempty"` // another Open has the rest
}

// Condemned lists endpoints of a target that must not be used any more.
type Condemned struct {
	Target Target   `json:"target"`
	IDs    []string `json:"ids"`
}

// Activity is how the sender uses targets.
type Activity struct {
	Full    bool  `json:"full,omitempty"` // forget what was said before
	More    bool  `json:"more,omitempty"` // other messages have the rest of a full one
	Targets []Use `json:"targets,omitempty"`
}

// Use is how one target is used.
type Use struct {
	Target  Target `json:"target"`
	Busy    bool   `json:"busy,omitempty"`
	AgeMs   int64  `json:"ageMs"` // since the last use, unless busy; negative: it was never used
	Carried bool   `json:"carried,omitempty"`
	Gone    bool   `json:"gone,omitempty"` // the sender does not know the target any more
}

// ColdStart says how long a cold start took that the sender has seen.
type ColdStart struct {
	Target Target `json:"target"`
	TookMs int64  `json:"tookMs"`
}

// Fence asks to hold what comes for a target, unless it was used within IdleForMs.
type Fence struct {
	Epoch     scaling.Epoch `json:"epoch"`
	Target    Target        `json:"target"`
	IdleForMs int64         `json:"idleForMs"`
}

// Ack says that the sender holds, and which endpoints it knows.
type Ack struct {
	Epoch scaling.Epoch `json:"epoch"`
	Known []string      `json:"known,omitempty"`
}

// Refuse says that the sender does not hold, since it used the target AgeMs ago; zero: it does now, or does not know it.
type Refuse struct {
	Epoch scaling.Epoch `json:"epoch"`
	AgeMs int64         `json:"ageMs"`
}

// Revoke says that a request waits because of the fence.
type Revoke struct {
	Epoch scaling.Epoch `json:"epoch"`
}

// Outcome says how a fence has ended.
type Outcome struct {
	Epoch     scaling.Epoch `json:"epoch"`
	Target    Target        `json:"target"`
	Slept     bool          `json:"slept,omitempty"`
	Unsure    bool          `json:"unsure,omitempty"` // besides Slept: the write was not answered
	Condemned []string      `json:"condemned,omitempty"`
	// Living are all endpoints of a target that is awake, if the leader whose fence it was is lost: it may have slept meanwhile, so
	// whoever holds knows others no more. Nil: not said.
	Living []string `json:"living,omitzero"`
}

// Sleep asks the leader to put a service's target to sleep.
type Sleep struct {
	ID      uint64 `json:"id"` // of the question, for its answer
	Service Key    `json:"service"`
}

// Answer is what came of a [Sleep].
type Answer struct {
	ID      uint64 `json:"id"`
	Outcome string `json:"outcome"`           // a word of a closed set; see sleep.go
	Problem string `json:"problem,omitempty"` // for people
}

// Borrow asks for leave to send N requests to endpoints that the receiver has a share of, in place of what was asked for
// before. It may be said again.
type Borrow struct {
	Service Key `json:"service"`
	N       int `json:"n"`
}

// Cancel takes back what was asked for with [Borrow], N in all.
type Cancel struct {
	Service Key `json:"service"`
	N       int `json:"n"`
}

// Lend gives leave to send one request to an endpoint.
type Lend struct {
	Service  Key    `json:"service"`
	Endpoint string `json:"endpoint"`
}

// Return gives back what was lent.
type Return struct {
	Service  Key    `json:"service"`
	Endpoint string `json:"endpoint"`
}

// Target is a [scaling.Target] on the wire.
type Target struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
}

// Key is a [scaling.Key] on the wire.
type Key struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Marshal returns m as a line, with its end. It fails if that is longer than [MaxLine].
func (m *Message) Marshal() ([]byte, error) {
	line, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	if len(line) >= MaxLine {
		return nil, fmt.Errorf("encode a message: it takes %d bytes, and %d are allowed", len(line), MaxLine)
	}
	return append(line, '\n'), nil
}

// Unmarshal reads a line, with or without its end. The error is [ErrUnknownMessage] where the line may be ignored;
// otherwise the peer does not speak as it should.
func Unmarshal(line []byte) (Message, error) {
	var m Message
	if len(line) > MaxLine {
		return m, fmt.Errorf("%w: longer than %d bytes", errMalformed, MaxLine)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return Message{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	switch n := m.count(); {
	case n == 0:
		return Message{}, ErrUnknownMessage
	case n > 1:
		return Message{}, fmt.Errorf("%w: it is %d at once", errMalformed, n)
	case !m.sane():
		return Message{}, fmt.Errorf("%w: a number is out of bounds", errMalformed)
	}
	return m, nil
}

// count returns how many fields are set.
func (m *Message) count() int {
	n := 0
	for _, set := range [...]bool{
		m.Lead != nil, m.Welcome != nil, m.Open != nil, m.Activity != nil, m.Fence != nil, m.Ack != nil,
		m.Refuse != nil, m.Revoke != nil, m.Outcome != nil, m.Sleep != nil, m.Answer != nil, m.Borrow != nil,
		m.Cancel != nil, m.Lend != nil, m.Return != nil, m.ColdStart != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// sane tells whether the numbers are such that we can calculate with them.
func (m *Message) sane() bool {
	switch {
	case m.Fence != nil:
		return 0 <= m.Fence.IdleForMs && m.Fence.IdleForMs <= mostMs
	case m.Refuse != nil:
		return 0 <= m.Refuse.AgeMs && m.Refuse.AgeMs <= mostMs
	case m.ColdStart != nil:
		return 0 <= m.ColdStart.TookMs && m.ColdStart.TookMs <= mostColdMs
	case m.Borrow != nil:
		return 0 < m.Borrow.N && m.Borrow.N <= MaxLine
	case m.Cancel != nil:
		return 0 < m.Cancel.N && m.Cancel.N <= MaxLine
	case m.Activity != nil:
		for i := range m.Activity.Targets {
			if m.Activity.Targets[i].AgeMs > mostMs {
				return false
			}
		}
	}
	return true
}

// mostColdMs is the longest cold start that is told of: a day.
const mostColdMs = 24 * int64(time.Hour/time.Millisecond)

// mostMs is the longest duration that there is.
const mostMs = int64(1<<63-1) / int64(time.Millisecond)
