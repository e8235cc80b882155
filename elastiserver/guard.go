package elastiserver

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// LoopbackOnly keeps web pages away from a control port that listens on loopback, where every browser of the machine can
// reach it and nobody has to say who he is. It answers 403 unless
//
//   - Host is localhost or a loopback address: a page whose name was rebound to 127.0.0.1 sends its own name;
//   - Origin, where there is one, is this server: browsers send it with every POST, forms included;
//   - Sec-Fetch-Site, where there is one, says that the request comes from this server's own pages, or from no page:
//     browsers send it where they leave out Origin, as with the source of an image (W3C Fetch Metadata).
//
// Programs other than browsers send neither of the latter two.
func LoopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var detail string
		switch {
		case !loopbackHost(r.Host):
			detail = "This port answers to localhost and to loopback addresses only."
		case !ownOrigin(r) || !ownSite(r):
			detail = "This port does not answer to pages of other sites."
		default:
			next.ServeHTTP(w, r)
			return
		}
		writeProblem(w, problem{Status: http.StatusForbidden, Detail: detail})
	})
}

// loopbackHost reports whether a Host field (RFC 9110 section 7.2) names this machine by loopback, with any port or none.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]") // an IPv6 address without a port
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.IsLoopback()
}

func ownOrigin(r *http.Request) bool {
	own := "http://" + r.Host
	if r.TLS != nil {
		own = "https://" + r.Host
	}
	foreign := func(origin string) bool { return !strings.EqualFold(origin, own) }
	return !slices.ContainsFunc(r.Header["Origin"], foreign)
}

func ownSite(r *http.Request) bool {
	foreign := func(site string) bool { return site != "same-origin" && site != "none" }
	return !slices.ContainsFunc(r.Header["Sec-Fetch-Site"], foreign)
}
