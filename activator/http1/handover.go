package http1

import (
	"bytes"
	"net"
	"time"

	"github.com/dormouse-dev/dormouse/activator/service"
)

// preface begins every connection of HTTP/2 (RFC 9113 section 3.4). That it goes on as it should is not looked at here.
const preface = "PRI * HTTP/2.0\r\n"

// Handover is a connection that another engine is to serve from here on: it speaks HTTP/2, or its next request was given
// an endpoint that does not speak HTTP/1.1 in clear text.
type Handover struct {
	Conn        net.Conn     // TCP, TLS or in memory; no deadline is set
	TCP         *net.TCPConn // that Conn is, or that lies beneath it; or nil
	Destination *service.Destination
	Secure      bool           // Conn is TLS
	Read        []byte         // what was read from Conn and not served, from the first byte of a request on
	Grant       *service.Grant // what the first request was given, or nil; whoever takes the Handover takes it, too
	From        *Conn
}

// mayBePreface reports whether what has come so far is a connection's preface, and whether all of it is there.
func mayBePreface(b []byte) (maybe, whole bool) {
	if len(b) >= len(preface) {
		whole = string(b[:len(preface)]) == preface
		return whole, whole
	}
	return len(b) > 0 && bytes.HasPrefix([]byte(preface), b), false
}

// handOver gives the connection away.
func (c *Conn) handOver(grant *service.Grant) {
	h := &Handover{Conn: c.conn, TCP: c.tcp, Destination: c.destination, Secure: c.secure, Grant: grant, From: c}
	if in := c.sock.In; in != nil {
		h.Read = bytes.Clone(in.Bytes())
	}
	c.sock.Drop()
	c.quit()
	_ = c.conn.SetDeadline(time.Time{})
	c.engine.options.Handover(h)
}
