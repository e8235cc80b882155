package scaling

import "time"

// event is what a lifecycle is told. now is always given besides, so it needs no clock.
type event struct {
	kind     eventKind
	activity Activity   // over all services of the target, at this moment, in this process
	snapshot *Endpoints // for snapshot
	err      error      // for asked, wrote, recalled, confirmed
	idle     bool       // for fenced
	until    time.Time  // for pin; zero: no longer
	policy   policy     // for configured
	services []Key      // for configured

	fleet fleetView // only what exists, but for tick

	fence     uint64        // for asked: which fence of ours
	epoch     Epoch         // for hold, unhold, recalled; for condemn: the fence that living is for, or zero
	idleFor   time.Duration // for hold
	outcome   Outcome       // for unhold
	condemned []string      // for asked, wrote, unhold, condemn: endpoints that must not be used once the target sleeps
	living    *[]string     // for condemn: all endpoints that exist; nil: not said
	took      time.Duration // for coldSeen
	reading   *Reading      // for recalled, confirmed; nil where there is an err, or nobody to ask
}

// fleetView is what is known of the other activators when a tick comes.
type fleetView struct {
	exists   bool // there may be others
	follows  bool // another one leads, or none
	unknown  bool // how the others use the target is not known
	activity Activity
}

type eventKind uint8

const (
	evConfigured eventKind = iota // the first event of all, and again when the configuration changes
	evWake                        // somebody wants the target awake
	evSnapshot                    // a service's endpoints changed
	evWrote                       // the scale write under way has ended
	evTick                        // the alarm went off
	evFenced                      // the fence is up; idle tells whether anybody was using the target
	evAsked                       // the other activators have answered whether they hold what comes for it
	evSleep                       // an operator wants the target asleep
	evPin                         // an operator wants the target awake until a time
	evFlushed                     // the first request that was held has its first byte
	evColdSeen                    // another activator has seen a cold start
	evArrived                     // a request waits because of the fence
	evLook                        // whoever leads has changed, or what is known of the others
	evHold                        // the leader wants to put it to sleep
	evUnhold                      // what came of that
	evRecalled                    // what the platform says of that
	evCondemn                     // endpoints must not be used any more
	evConfirmed                   // what the platform says of endpoints that may be acquitted
)

// action is what a lifecycle wants done.
type action struct {
	kind     actionKind
	replicas int32      // for write
	from, to State      // for state
	cold     *coldStart // for coldStart

	idleFor   time.Duration // for ask
	fence     uint64        // for ask
	epoch     Epoch         // for revoke, recall, found
	outcome   Outcome       // for end
	condemned []string      // for end, found
	reply     FenceReply    // for reply
}

type actionKind uint8

const (
	actWrite     actionKind = iota // write the scale, then report evWrote
	actFence                       // make new arrivals wait, then report evFenced
	actAsk                         // ask the other activators to do the same, then report evAsked
	actEnd                         // tell them the outcome
	actLift                        // let new arrivals go on
	actReply                       // answer the leader that asked us
	actRevoke                      // tell of a request that has come meanwhile
	actFound                       // tell of a sleep whose leader is lost
	actRecall                      // ask the platform what became of the leader's fence, then report evRecalled
	actConfirm                     // ask the platform which endpoints exist, then report evConfirmed
	actPublish                     // tell the proxy path, from view
	actState                       // the state changed
	actLost                        // a wake does not hold
	actColdStart                   // a cold start ended
)
