package elastiserver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// Response is the event endpoint's answer to an event that it accepted.
type Response struct {
	// Message says whether a wake was started, joined or not needed.
	Message string `json:"message"`
}

// incomingEvent is the body of an event, in the wire form of KubeElasti's resolver.
type incomingEvent struct {
	// Count is how many requests stand behind the event. One is enough to wake; the number is checked and not used.
	Count     int    `json:"count"`
	Svc       string `json:"svc"`
	Namespace string `json:"namespace"`
}

// incomingRequest takes events of resolvers that hold requests for a service of ours. They take anything but 200 for a
// failure, so 200 is the answer only where the wake is recorded or needless.
func (s *Server) incomingRequest(w http.ResponseWriter, r *http.Request) (any, error) {
	wake := Right{Verb: "create", Subresource: "wake"}
	caller, err := s.whoReports(r)
	if err != nil {
		return nil, &refusal{wake, err}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errTooLarge
		}
		return nil, &badRequest{detail: "The body broke off."}
	}
	event, err := parseEvent(body)
	if err != nil {
		return nil, err
	}
	wake.Service = scaling.Key{Namespace: event.Namespace, Name: event.Svc}
	if err := caller.May(r.Context(), wake); err != nil {
		return nil, &refusal{wake, err}
	}
	result, err := s.Wake(r.Context(), wake.Service, metrics.SourceEvent)
	if err != nil {
		return nil, err
	}
	switch result {
	case scaling.WakeStarted:
		return Response{Message: "a wake was started"}, nil
	case scaling.WakeJoined:
		return Response{Message: "a wake under way was joined"}, nil
	default:
		return Response{Message: "no wake was needed"}, nil
	}
}

// parseEvent is strict about types and about what it needs. Fields that it does not know are passed over, so that newer
// resolvers can be used.
func parseEvent(body []byte) (incomingEvent, error) {
	event := incomingEvent{Count: 1}
	if err := json.Unmarshal(body, &event); err != nil {
		var wrong *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrong) && wrong.Field == "count":
			return event, &badRequest{field: wrong.Field, detail: "count must be a whole number."}
		case errors.As(err, &wrong) && wrong.Field != "":
			return event, &badRequest{field: wrong.Field, detail: wrong.Field + " must be a string."}
		}
		return event, &badRequest{detail: `The body must be one JSON object, such as {"count":1,"svc":"shop","namespace":"web"}.`}
	}
	switch {
	case event.Svc == "":
		return event, &badRequest{field: "svc", detail: "svc must name a service."}
	case event.Namespace == "":
		return event, &badRequest{field: "namespace", detail: "namespace must name the service's namespace."}
	case event.Count < 0:
		return event, &badRequest{field: "count", detail: "count must not be negative."}
	}
	return event, nil
}
