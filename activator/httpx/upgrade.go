package httpx

import (
	"net/http"
)

func (x *exchange) switchProtocols(up upstream, resp *http.Response) {
	x.endLease(up.end(x, false))
	x.refuse(problemUpstream())
}
