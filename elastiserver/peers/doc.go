// Package peers makes the activators of one cluster act as one: who leads puts targets to sleep, and only when none of the others
// uses them.
//
// A [Fleet] gives messages of the other activators their meaning. How they get from one to the other is not its business
// (package stream does that), nor how a leader is elected, nor who counts as a member: that it is told.
//
// # Activity
//
// Everybody tells everybody how it uses each target: all at first, and later what has changed, once a second. The leader thus
// knows what is worth a try. It does not have to know it exactly, as every try asks again.
//
// # The fence
//
// The leader notes a fence down, then asks the platform who is a member, then asks each of them to hold what comes for
// the target. Who comes later than the list learns of the fence when it connects, and uses nothing before. A member that
// uses the target, or did a short time ago, refuses, and one that the leader has no stream to counts as one that does. When
// all hold, the leader may write the scale, within a second of its first message: [Fleet.May] is asked last. Then it
// tells how the fence has ended, and which endpoints must not be used any more.
//
// A fence whose leader is lost is answered by the next one, which asks the platform how the scale is. That is no guess: it
// leads only when whatever the one before has written is done or never will be.
//
// # Starting
//
// A process that starts may have been told of fences and condemned endpoints in an earlier life, and remembers nothing.
// It lets no request pass before it has heard of them: from the leader, or from all others if it leads itself. Where nobody
// else runs it waits two seconds, for what its earlier process may have sent. After ten seconds it does without.
package peers
