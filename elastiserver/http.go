package elastiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// Handler returns the control port: the event endpoint and the API, as docs/api.md describes them. It lets in whoever can
// reach it, or only whom Guard has it let in; see [LoopbackOnly] too.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/informer/incoming-request", s.answering(s.incomingRequest, http.MethodPost)) // admits by itself
	mux.Handle("/api/v1/services", s.answering(s.admitting(listing, s.listServices), http.MethodGet, http.MethodHead))
	const service = "/api/v1/services/{namespace}/{name}"
	mux.Handle(service, s.answering(s.admitting(one("get", ""), s.getService), http.MethodGet, http.MethodHead))
	for action, e := range map[string]endpoint{"wake": s.wakeService, "sleep": s.sleepService, "pin": s.pinService} {
		mux.Handle(service+"/"+action, s.answering(s.admitting(one("create", action), e), http.MethodPost))
	}
	mux.Handle("/api/v1/events", only(s.Admitting(Right{Verb: "watch"}, http.HandlerFunc(s.serveEvents)), http.MethodGet))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, problem{Status: http.StatusNotFound, Detail: "There is nothing at this path."})
	})
	return mux
}

// endpoint answers a request with what is to be encoded as JSON. It uses w only to read the request's body.
type endpoint func(w http.ResponseWriter, r *http.Request) (any, error)

// answering makes an endpoint a handler. Nothing is written before the endpoint has returned, so an endpoint that panics
// is answered with 500.
func (s *Server) answering(e endpoint, methods ...string) http.Handler {
	return only(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := s.call(e, w, r)
		if refused, ok := errors.AsType[*refusal](err); ok {
			s.refuse(w, refused)
			return
		}
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		writeJSON(w, "application/json", http.StatusOK, body)
	}), methods...)
}

// admitting is an endpoint for those who have a right.
func (s *Server) admitting(right func(*http.Request) Right, e endpoint) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if err := s.admit(r, right(r)); err != nil {
			return nil, err
		}
		return e(w, r)
	}
}

func (s *Server) call(e endpoint, w http.ResponseWriter, r *http.Request) (body any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.logger.Error("an endpoint panicked", zap.String("path", r.URL.Path), zap.Any("cause", cause), zap.Stack("stack"))
			body, err = nil, errPanic
		}
	}()
	return e(w, r)
}

// only lets methods through to next.
func only(next http.Handler, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			allow := strings.Join(methods, ", ")
			w.Header().Set("Allow", allow)
			writeProblem(w, problem{Status: http.StatusMethodNotAllowed, Detail: "The method must be one of: " + allow + "."})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// writeJSON writes a whole answer. Its body ends with a newline, for people at a terminal.
func writeJSON(w http.ResponseWriter, contentType string, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil { // a body of our own that has no JSON form
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(encoded, '\n'))
}
