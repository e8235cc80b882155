package elastiserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/dormouse-dev/dormouse/scaling"
)

var (
	errTooLarge = errors.New("the body is too large")
	errPinned   = errors.New("the service is pinned")
	errPanic    = errors.New("the endpoint panicked")
)

// problem is an answer that tells what went wrong: a problem document (RFC 9457) of type about:blank, so that its title
// is the status's own. What is in it may be shown to anybody: no error string ever is.
type problem struct {
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Field  string         `json:"field,omitempty"`  // at fault, of the body or of the query
	Reason scaling.Reason `json:"reason,omitempty"` // why the service cannot be woken
}

// badRequest is the error of a request that says something impossible.
type badRequest struct {
	field  string // at fault; empty: the body as a whole
	detail string // a sentence
}

func (e *badRequest) Error() string { return e.detail }

// problemOf turns an error into an answer.
func problemOf(err error) problem {
	var bad *badRequest
	var failure *scaling.Failure
	switch {
	case errors.As(err, &bad):
		return problem{Status: http.StatusBadRequest, Detail: bad.detail, Field: bad.field}
	case errors.Is(err, errTooLarge):
		return problem{Status: http.StatusRequestEntityTooLarge, Detail: "The body is larger than 64 KiB."}
	case errors.Is(err, scaling.ErrUnknownService):
		return problem{Status: http.StatusNotFound, Detail: "There is no such service."}
	case errors.Is(err, scaling.ErrBusy):
		return problem{Status: http.StatusConflict, Detail: "The service is in use, or being woken."}
	case errors.Is(err, scaling.ErrNoLeader):
		return problem{Status: http.StatusServiceUnavailable, Detail: "No activator leads at present; ask again in some seconds."}
	case errors.Is(err, scaling.ErrSilent):
		return problem{Status: http.StatusServiceUnavailable, Detail: "Another activator does not answer, so nothing is put to sleep."}
	case errors.Is(err, errPinned):
		return problem{Status: http.StatusConflict, Detail: "The service is pinned awake."}
	case errors.Is(err, errPanic):
		return problem{Status: http.StatusInternalServerError, Detail: "Dormouse is at fault; its log says more."}
	case errors.Is(err, scaling.ErrStopped):
		return problem{Status: http.StatusServiceUnavailable, Detail: "Dormouse is not running."}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem{Status: http.StatusServiceUnavailable, Detail: "The scale was not recorded in time."}
	case errors.As(err, &failure):
		return problem{Status: http.StatusServiceUnavailable, Detail: "The service cannot be scaled.", Reason: failure.Reason}
	}
	return problem{
		Status: http.StatusServiceUnavailable, Detail: "The scale could not be written.", Reason: scaling.ReasonScaleFailed,
	}
}

func writeProblem(w http.ResponseWriter, p problem) {
	p.Title = http.StatusText(p.Status)
	writeJSON(w, "application/problem+json", p.Status, p)
}
