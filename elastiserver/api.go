package elastiserver

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// maxPin bounds how long a service is pinned at a time: a pin that everybody has forgotten ends by itself.
const maxPin = 30 * 24 * time.Hour

// service is a service's status as the API shows it. Durations are in seconds, and times in UTC.
type service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Target    target `json:"target"`

	State            string    `json:"state"`
	Since            time.Time `json:"since,omitzero"`
	Replicas         *int32    `json:"replicas,omitempty"` // wished for; absent: not known
	ReadyEndpoints   int       `json:"readyEndpoints"`
	PendingEndpoints int       `json:"pendingEndpoints"`
	Late             string    `json:"late,omitempty"` // why a pending endpoint is

	Held         int       `json:"held"`
	InFlight     int       `json:"inFlight"`
	LastActive   time.Time `json:"lastActive,omitzero"`
	NoTrafficYet bool      `json:"noTrafficYet,omitempty"`

	LastWake             time.Time `json:"lastWake,omitzero"`
	LastColdStartSeconds float64   `json:"lastColdStartSeconds,omitempty"`
	PinnedUntil          time.Time `json:"pinnedUntil,omitzero"`
	Failure              *failure  `json:"failure,omitempty"`
}

type target struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type failure struct {
	Reason  scaling.Reason `json:"reason"`
	Message string         `json:"message,omitempty"`
}

// services is the answer to a wish for all of them.
type services struct {
	Services []service `json:"services"`
}

// done is the answer to a wish that was carried out.
type done struct {
	Outcome string  `json:"outcome"`
	Service service `json:"service"`
}

func (s *Server) listServices(http.ResponseWriter, *http.Request) (any, error) {
	keys := s.scaleHandler.Services()
	list := make([]service, 0, len(keys))
	for _, key := range keys {
		if status, ok := s.scaleHandler.Status(key); ok {
			list = append(list, present(status))
		}
	}
	return services{list}, nil
}

func (s *Server) getService(_ http.ResponseWriter, r *http.Request) (any, error) {
	status, ok := s.scaleHandler.Status(keyOf(r))
	if !ok {
		return nil, scaling.ErrUnknownService
	}
	return present(status), nil
}

func (s *Server) wakeService(_ http.ResponseWriter, r *http.Request) (any, error) {
	key := keyOf(r)
	result, err := s.Wake(r.Context(), key, metrics.SourceAPI)
	if err != nil {
		return nil, err
	}
	return s.did(string(outcomeOf(result, nil)), key)
}

func (s *Server) sleepService(_ http.ResponseWriter, r *http.Request) (any, error) {
	key := keyOf(r)
	if status, _ := s.scaleHandler.Status(key); status.PinnedUntil.After(time.Now()) {
		return nil, errPinned
	}
	if err := s.scaleHandler.Sleep(r.Context(), key); err != nil {
		return nil, err
	}
	return s.did("asleep", key)
}

func (s *Server) pinService(_ http.ResponseWriter, r *http.Request) (any, error) {
	key := keyOf(r)
	length, err := pinLength(r.URL)
	if err != nil {
		return nil, err
	}
	if length == 0 {
		if err := s.pin(r.Context(), key, time.Time{}); err != nil {
			return nil, err
		}
		return s.did("unpinned", key)
	}
	// Pin would wake it too, but outside any window.
	if _, err := s.Wake(r.Context(), key, metrics.SourceAPI); err != nil {
		return nil, err
	}
	if err := s.pin(r.Context(), key, time.Now().Add(length)); err != nil {
		return nil, err
	}
	return s.did("pinned", key)
}

// pin leaves a pin to who keeps it, if anybody does: another service of the target may be pinned for longer.
func (s *Server) pin(ctx context.Context, key scaling.Key, until time.Time) error {
	if _, known := s.scaleHandler.Target(key); known && s.pins != nil {
		return s.pins.Pin(ctx, key, until)
	}
	return s.scaleHandler.Pin(ctx, key, until)
}

// did answers a wish that was carried out.
func (s *Server) did(outcome string, key scaling.Key) (any, error) {
	status, ok := s.scaleHandler.Status(key)
	if !ok {
		return nil, scaling.ErrUnknownService // removed meanwhile
	}
	return done{outcome, present(status)}, nil
}

// pinLength reads how long to pin, from zero to maxPin, from the query.
func pinLength(u *url.URL) (time.Duration, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return 0, &badRequest{detail: "The query is malformed."}
	}
	wrong := &badRequest{field: "for", detail: "for must be one duration, such as 90m or 1h30m, from 0 (not pinned any more) to 720h."}
	if len(query["for"]) != 1 {
		return 0, wrong
	}
	length, err := time.ParseDuration(query["for"][0])
	if err != nil || length < 0 || length > maxPin {
		return 0, wrong
	}
	return length, nil
}

func keyOf(r *http.Request) scaling.Key {
	return scaling.Key{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
}

func present(st scaling.Status) service {
	s := service{
		Namespace: st.Service.Namespace,
		Name:      st.Service.Name,
		Target:    target{st.Target.Kind, st.Target.Namespace, st.Target.Name},

		State:            st.State.String(),
		Since:            st.Since.UTC(),
		ReadyEndpoints:   st.Ready,
		PendingEndpoints: st.Pending,
		Late:             st.Late,

		Held:         st.Activity.Held,
		InFlight:     st.Activity.InFlight,
		LastActive:   st.Activity.Last.UTC(),
		NoTrafficYet: st.NoTrafficYet,

		LastWake:             st.LastWake.UTC(),
		LastColdStartSeconds: st.LastColdStart.Seconds(),
	}
	if st.Replicas >= 0 {
		s.Replicas = &st.Replicas
	}
	if st.PinnedUntil.After(time.Now()) {
		s.PinnedUntil = st.PinnedUntil.UTC()
	}
	if st.Failure != nil {
		s.Failure = presentFailure(st.Failure)
	}
	return s
}

func presentFailure(f *scaling.Failure) *failure {
	return &failure{f.Reason, f.Message}
}
