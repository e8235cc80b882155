// Package syntax reads the messages of HTTP/1.1 as RFC 9112 writes them. It does no I/O, and knows nothing of what a proxy
// does with a message: it says where each part lies, what delimits the body, and what Connection says.
//
// Messages come in pieces. [Request.Parse], [Response.Parse] and [Trailers.Parse] are called again with the same bytes and
// more behind them; they look only at what is new, so a message that comes byte by byte costs no more than one that comes
// whole. [Chunks] reads what the chunked coding puts around a body. Nothing is copied: a [Span] says where something lies
// in the caller's buffer, which may move between calls.
//
// It is strict. What RFC 9112 lets a recipient mend (line feeds alone, folded lines, white space in odd places, two ways of
// giving a length) has been read differently by different programs, which is how requests are smuggled past proxies
// (sections 11.1 and 11.2). Such a message is refused, and as soon as it is certain to be malformed: the rest of it is not
// waited for. What is refused is the same however the bytes were cut.
package syntax
