package httpx

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/dormouse-dev/dormouse/activator/balance"
	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/activator/problem"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/metrics"
)

// waiterCost is about what a held request keeps in memory besides its header: a goroutine or two, net/http's state and
// buffers, and ours.
const waiterCost = 16 << 10

// smallBody is how long a body may be to go to any endpoint, even one that does not read, before its client can have left:
// net/http notices that only when the body was read to its end.
const smallBody = 16 << 10

// statusLeft is what stands for the answer in metrics when the client left before it was complete. The number is nginx's.
const statusLeft = 499

// exchange is one request on its way, and its answer. It belongs to the handler's goroutine, but for the parts with a
// type of their own. Exchanges are used again.
type exchange struct {
	hold.Waiter
	handler *Handler
	told    chan struct{} // the gate has decided: lease or refusal is set
	left    chan struct{} // the client has left while it waited

	w       http.ResponseWriter
	r       *http.Request
	client  *Conn // or nil: not one of ours
	arrived time.Time
	service *service.Service // or nil: none was found
	request request
	body    requestBody

	granted  *service.Grant // what it was given in another engine, until it is used; or nil
	lease    balance.Lease  // its Endpoint is nil where there is none
	refusal  hold.Refusal   // where the gate has refused
	refused  bool
	retried  bool          // it was sent once already
	wait     time.Duration // how long it was held; zero: it was not
	status   int           // of the answer; 0: none was begun
	partial  bool          // the answer will not be complete
	hijacked bool
	failure  error  // why the endpoint's answer was lost, or nil
	watch    uint64 // for the client's departure; 0: none
	finished bool   // run has returned
	loud     bool   // an interruption of an earlier attempt may still be running

	departed     func() // clientDeparted, made once
	interruption interruption

	informing sync.Mutex // guards the following, and everything that writes 1xx
	continued bool       // the client was told to send its body
	final     bool       // the header of the answer is being written
	informed  int        // how many interim answers have come
}

func newExchange(h *Handler) *exchange {
	x := &exchange{handler: h, told: make(chan struct{}, 1), left: make(chan struct{}, 1)}
	x.Grantee = x
	x.departed = x.clientDeparted
	x.body.x = x
	x.interruption.x = x
	x.interruption.leave = x.interruption.gone
	return x
}

func (x *exchange) begin(w http.ResponseWriter, r *http.Request, now time.Time) {
	x.w, x.r, x.arrived = w, r, now
	x.client, _ = r.Context().Value(connKey{}).(*Conn)
	if x.client != nil {
		x.client.serving(r.ProtoMajor == 2)
		x.granted = x.client.takeGrant()
	}
	x.body.begin(r)
	x.request.target = target(r)
	x.service, x.retried, x.wait = nil, false, 0
	x.status, x.partial, x.hijacked, x.failure, x.finished, x.loud = 0, false, false, nil, false, false
	x.continued, x.final, x.informed = false, false, 0
	x.interruption.reset()
	if x.body.present && r.ProtoMajor == 1 {
		// Both directions flow at once; and what is not read of a request is our business, in end.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
}

// run carries the request, or answers it with a problem. Held requests wait beneath it, thousands at once, on stacks that
// double when they are full: what need not be in the frames between here and await is not.
func (x *exchange) run() {
	outcome, going := x.enter()
	for going {
		switch outcome {
		case hold.Held:
			outcome, going = x.hold()
		case hold.Leased:
			outcome, going = x.carry()
		case hold.Refused:
			x.refuseAtGate()
			going = false
		}
	}
	x.finished = true
}

// enter finds the service and asks at its gate. It reports false if the request is answered already.
func (x *exchange) enter() (outcome hold.Outcome, going bool) {
	if x.r.Method == http.MethodConnect {
		x.refuse(problem.Connect())
		return 0, false
	}
	if !httpguts.ValidHeaderFieldName(x.r.Method) { // a token; on HTTP/2 net/http takes anything
		x.refuse(problem.Method())
		return 0, false
	}
	path, wellFormed := pathOf(x.request.target)
	if !wellFormed {
		x.refuse(problem.Target())
		return 0, false
	}
	found, ok := x.find(path)
	if !ok {
		x.refuse(problem.Unrouted(x.destination() != nil))
		return 0, false
	}
	x.service = found
	if passedBefore(x.r.Header, found.Passed()) {
		x.refuse(problem.Loop())
		return 0, false
	}
	x.rewrite()
	x.Fresh = x.body.present || !isIdempotent(x.r.Method)
	x.Cost = x.cost()
	if x.granted != nil {
		x.resume()
		return hold.Leased, true
	}
	return x.given(found.Gate.Acquire(&x.Waiter, x.arrived)), true
}

// find returns the service that the request is for.
func (x *exchange) find(path string) (*service.Service, bool) {
	if x.granted != nil {
		return x.granted.Service, true
	}
	if d := x.destination(); d != nil {
		found := d.Service()
		return found, found != nil
	}
	return x.handler.table.Load().Match(x.r.Host, path, x.r.Header)
}

// destination returns where all requests of the client's connection go, or nil.
func (x *exchange) destination() *service.Destination {
	if x.client == nil {
		return nil
	}
	return x.client.destination
}

// given keeps what the gate has decided at once. Where it has not (Held), the decision may already be coming from another
// goroutine.
func (x *exchange) given(outcome hold.Outcome, lease balance.Lease, refusal hold.Refusal) hold.Outcome {
	switch outcome {
	case hold.Leased:
		x.lease = lease
	case hold.Refused:
		x.refusal = refusal
	case hold.Held:
	}
	return outcome
}

func (x *exchange) refuseAtGate() { x.refuse(problem.Of(x.refusal)) }

// cost estimates the memory that the request keeps while it is held.
func (x *exchange) cost() int64 {
	cost := int64(waiterCost + len(x.r.RequestURI))
	for name, values := range x.r.Header {
		cost += int64(len(name))
		for _, value := range values {
			cost += int64(len(value))
		}
	}
	if x.body.present && x.r.ProtoMajor == 2 {
		cost += StreamWindow
	}
	return cost
}

// carry sends the request to the endpoint of the lease and passes its answer on. Where the endpoint could not be reached
// it reports that the request goes on (going), and what the gate has given it instead.
func (x *exchange) carry() (outcome hold.Outcome, going bool) {
	x.service.InTime()
	x.interruption.begin()
	if x.body.present && (x.r.ContentLength < 0 || x.r.ContentLength > smallBody) {
		x.watchClient()
	}
	up, err := x.connect()
	if err != nil {
		return x.unreachable(err)
	}
	resp, err := up.roundTrip(x) //nolint:bodyclose // by answer or switchProtocols, or by end
	if err != nil && x.retriable(up, err) {
		up.end(x, false)
		if x.repeatable() { // still: until end, the body could be read
			x.retried = true
			x.loud = !x.interruption.unsent() || x.loud
			if up, err = x.connect(); err != nil {
				return x.unreachable(err)
			}
			resp, err = up.roundTrip(x) //nolint:bodyclose // as above
		}
	}
	if err != nil {
		up.end(x, false)
		if x.repeatable() && up.loss(err).unprocessed {
			return x.unreachable(err) // a new connection, and nothing is taken there either
		}
		x.endLease(nil)
		x.lost(err)
		return 0, false
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.switchProtocols(up, resp)
		return 0, false
	}
	whole := x.answer(resp)
	x.endLease(up.end(x, whole))
	return 0, false
}

// unreachable gives the lease back after its endpoint could not be connected to. The results are carry's.
func (x *exchange) unreachable(err error) (outcome hold.Outcome, going bool) {
	if x.interruption.why() != causeNone {
		x.endLease(nil)
		x.lost(err)
		return 0, false
	}
	x.loud = !x.interruption.end() || x.loud
	reason := dialReason(err)
	x.service.Metrics.DialFailure(reason)
	gate, lease, now := x.service.Gate, x.lease, time.Now()
	x.lease = balance.Lease{}
	if reason == metrics.DialDescriptors {
		return x.given(gate.DialStarved(&lease, &x.Waiter, now)), true
	}
	return x.given(gate.DialFailed(&lease, &x.Waiter, now)), true
}

// endLease ends the lease, with a connection for the gate to keep or nil.
func (x *exchange) endLease(c balance.Conn) {
	if x.lease.Endpoint != nil {
		x.service.Gate.Release(&x.lease, c, time.Now())
	}
}

// firstByte notes that the endpoint has begun to answer.
func (x *exchange) firstByte() { x.service.Gate.Answered(&x.lease, x.wait > 0) }

// lost answers a request whose endpoint has not answered it.
func (x *exchange) lost(err error) {
	x.failure = err
	switch cause := x.interruption.why(); {
	case x.body.broken.Load():
		x.bodyFailed()
	case cause == causeNone:
		x.refuse(problem.Upstream())
	case cause == causeLeft:
		x.status = statusLeft
	case cause == causeDrained:
		x.refuse(problem.Draining(0))
	default:
		x.refuse(problem.Late(cause == causeIdle))
	}
}

// bodyFailed answers a request whose body could not be read: if the client did not leave, it does not speak HTTP.
func (x *exchange) bodyFailed() {
	if isDeparture(x.body.failure) {
		x.status = statusLeft
		return
	}
	x.refuse(problem.Body())
}

// end is the last thing that is done for every request. It panics with http.ErrAbortHandler where the client must see that
// its answer is not complete, or does not see anything any more.
func (x *exchange) end() {
	if x.granted != nil { // it was refused here for a reason of its own
		x.granted.Release()
		x.granted = nil
	}
	x.endLease(nil) // still there only after a panic
	x.unwatchClient()
	quiet := x.interruption.end() && x.finished && !x.loud
	abort := x.partial || x.status == statusLeft
	if x.client != nil && x.r.ProtoMajor == 1 && !x.hijacked {
		switch {
		case abort:
			x.client.abort()
		case x.body.unread():
			x.client.lastAnswer()
		}
	}
	x.count()
	x.w, x.r, x.client = nil, nil, nil
	if quiet {
		x.handler.exchanges.Put(x)
	}
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// count counts the request.
func (x *exchange) count() {
	status := x.status
	if x.partial && status != statusLeft {
		status = http.StatusBadGateway
	}
	x.counters().Request(status, time.Since(x.arrived))
}

func (x *exchange) counters() *metrics.Service {
	if x.service == nil {
		return x.handler.options.Unrouted
	}
	return x.service.Metrics
}

// isDeparture reports whether reading a body failed because the client left.
func isDeparture(err error) bool {
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network) ||
		errors.Is(err, context.Canceled) || errors.Is(err, syscall.ECONNRESET)
}
