package main

import (
	"io"
	"maps"
	"net/http"
	"net/url"
)

// forward passes the request on, as a proxy does that an operator put in the wrong place.
func (s *server) forward(w http.ResponseWriter, r *http.Request, p *params) {
	to, err := url.ParseRequestURI(p.values.Get("to"))
	if err != nil || to.Host == "" {
		http.Error(w, "parameter to is not a URL", http.StatusBadRequest)
		return
	}
	req := r.Clone(r.Context())
	req.URL, req.RequestURI = to, ""
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // which follows no redirect
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}
