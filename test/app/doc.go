// Command app is the server behind Dormouse in tests, in the demo and in the benchmarks: one process whose misbehaviour is chosen by
// flags and, request by request, by paths. It listens on the address it is given, 127.0.0.1 and $PORT by default.
//
// "app get URL…" is no server: it requests the URLs and prints a line of JSON for each, so that a pod of it can be a client, too.
//
// # Flags
//
// Every flag has an environment variable, which the flag overrides: $PORT for --port, and for the others APP_ with the flag's name, such as
// APP_LISTEN_DELAY for --listen-delay. A duration of 0 turns its feature off.
//
//	--host IP              IPv4 address to listen on (127.0.0.1)
//	--port N               port to listen on; 0 chooses one
//	--name NAME            name, sent in every answer's X-App-Name (app); X-App-Listening beside it is when the app began to listen, in Unix nanoseconds
//	--protocol P           auto: HTTP/1.1, h2c with prior knowledge and, on h2c, gRPC; http1; h2c; grpc: a plain gRPC server (auto)
//	--backlog N            length of the listen backlog; 0: the kernel's largest
//	--listen-delay D       time from the start to listening; connections are refused meanwhile
//	--ready-delay D        time from listening to readiness; /healthz answers 503 meanwhile, gRPC health NOT_SERVING
//	--accept-delay D       pause before each accept
//	--header-delay D       pause before each request is handled, health checks included
//	--idle-timeout D       close HTTP connections that were idle this long; 0: never
//	--refuse-for D         after the first connection was accepted, close the listening socket for D
//	--crash-at-start[=N]   write some lines to stderr and exit with status N (1), without listening
//	--crash-after D        exit with status 1, answers unfinished, D after it began to listen
//	--ignore-sigterm       do nothing on SIGTERM; otherwise, and on SIGINT, finish open requests and exit with status 0
//	--linger D             after that signal, go on as before for D; the answers to requests that come meanwhile have X-App-Terminating
//	--drain D              time that open requests have at the end (5s)
//
// On stdout it writes "address IP:PORT" when the port is its own, then "listening", then "ready".
//
// # Paths
//
// Parameters are given in the query: D is a Go duration, SIZE a number of bytes with an optional k, m or g (powers of 1024). A bad one is
// answered with 400. The methods are not checked.
//
//	/                                   a line of text with name, process id and protocol
//	/page                               the same as a page for a browser
//	/healthz                            200, or 503 until ready
//	/count                              JSON: requests, inFlight, maxInFlight, cancelled, uploads, truncated, connections; /count, /healthz and
//	                                    gRPC health checks are not counted; uploads and truncated tell whether /upload saw its body's end
//	/conn                               JSON: remote address, serial number of the connection, number of the request on it, protocol
//	/headers                            JSON: the request as it was received, trailers included; on HTTP/1.1 the header lines byte for byte.
//	                                    So does every path that is not in this list, and "*"
//	/status/CODE                        this status, from 200 to 599
//	/delay?headers=D&body=D             headers after the one, a body after the other
//	/bytes?n=SIZE                       the alphabet, over and over; chunk=SIZE: flushed after every chunk; delay=D: pause between chunks, 32k
//	                                    by default; cl=1: Content-Length instead of chunks
//	/echo                               the request's body, sent back as it comes
//	/upload                             JSON: bytes and sha256 of the request's body
//	/trailers                           JSON: the request's trailers; trailers X-Body-Sha256 (declared) and X-Body-Bytes (not declared)
//	/forward?to=URL                     requests the URL with this request's method, Host, headers and body, and answers as it does; 502 if it does not
//	/early-hints?delay=D                103 with two Links, 200 after the delay
//	/sse?n=N&delay=D                    N server-sent events (10), each flushed; 0: without end
//	/ws                                 WebSocket, every message sent back
//	/upgrade                            switches to the protocol "echo": all bytes are sent back and, when the client has shut its side, "bye"
//	/unasked-101                        101, though nobody asked for it; the connection then stays open until the client closes it
//	/early-413?then=reset               413 without reading the body; then a reset, of the connection or, on HTTP/2, of the stream
//	/stall?read=0                       reads the body, or does not, and never answers; ends when the client leaves
//	/crash?after=SIZE&how=HOW           dies in mid-body: exit (the default; with status code=N, 1), reset (as in /early-413), fin (the connection
//	                                    ends without a last chunk). cl=SIZE announces a Content-Length instead of chunks, headers=0 dies before
//	                                    the status line, reused=1 only if the connection has served a request before; else it answers 200
//	/refuse?for=D                       closes the listening socket for D; accepted connections stay
//	/exit?code=N                        answers 200 and exits with status N (0), as on SIGTERM
//
// # gRPC
//
// grpc.testing.TestService with the semantics of gRPC's interoperability tests, and grpc.health.v1.Health. On h2c they share net/http's
// connections with the paths above, on --protocol=grpc they have grpc-go's own transport, with its keepalives and GOAWAYs, and there are no paths.
package main
