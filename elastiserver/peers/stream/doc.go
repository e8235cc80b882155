// Package stream carries lines between activators: one long-lived stream for each pair of them, over TLS. It knows who
// is at the other end and whether he is still there. What the lines say is not its business.
//
// # The transport
//
// Of two activators the one of the lesser id, compared byte by byte, dials the other's control port, over TLS with
// HTTP/1.1, and asks for an upgrade (RFC 9110 section 7.8):
//
//	GET /peers/v1/stream HTTP/1.1
//	Host: dormouse-control.dormouse.svc
//	Authorization: Bearer eyJhbGciOi…
//	Connection: Upgrade
//	Upgrade: dormouse-peers
//
// The dialled side answers 101, or a problem document (RFC 9457):
//
//	400  the request has a body
//	401  the token proves nothing
//	403  the token is not an activator's
//	405  another method than GET
//	409  the greater id dials
//	426  no upgrade, or one to something else
//	503  not running, too many others are at it, or the token could not be looked at
//
// From then on both send lines, each ended by \n and of at most 1 MiB with it. The dialled side sends its hello at once.
// The dialling side checks it, and only then sends its own; so neither takes part with a stranger:
//
//	{"hello":{"id":"6e1f…","name":"dormouse-7d4b-x2x9v","incarnation":"GYBQ…","version":"1.2.0"}}
//
// The id is the pod's UID. A dialled side proves its identity by TLS: its certificate belongs to all activators, and its
// hello must have the id that was dialled, as an address may have got to another pod meanwhile. A dialling side proves it
// by its token, whose pod must be that of its hello. A hello is at most 4 KiB; none of its four fields is longer than 253
// bytes, id and incarnation are not empty, an incarnation has no slash, and fields that are not known are ignored. Up to
// here all has to be done within 3 s.
//
// Then both send whatever their users want, and an empty line when they have sent nothing for a second. A side that hears
// nothing for 3 s, or cannot send for 3 s, ends the stream, and so does one for which more than 4 MiB wait to be sent. A
// stream is ended by ending the connection; who does it with a good reason sends before that what waits (for 1 s at most).
// There is no stream to be resumed: the next one begins with nothing.
//
// A process is told from its predecessor in the same pod by its incarnation. A newer stream of a pod takes the place of
// the one before, whichever process that was of.
package stream
