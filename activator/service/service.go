// Package service is what engines share of the services that they carry requests for: what a route leads to, the places
// whose requests all belong to one service, and what one engine hands another with a request.
package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/hold"
	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
)

// PassedHeader lists the services through whose gates a request has gone. A request that comes back to one of them would
// go round until something breaks; it is answered with 508 instead (RFC 5842 section 7.2).
const PassedHeader = "Dormouse-Passed"

// Service is what a route leads to. It is safe for concurrent use.
type Service struct {
	Gate    *hold.Gate
	Metrics *metrics.Service

	description *scaling.Service
	passed      string
	late        atomic.Bool // a held request's time was over, and none has been given an endpoint since
	tls         func() (*tls.Config, error)
}

// New returns the Service for the gate's current description. A changed description makes a new Service.
func New(gate *hold.Gate, counters *metrics.Service) *Service {
	s := &Service{Gate: gate, Metrics: counters, description: gate.Service(), passed: gate.Key().String()}
	s.tls = sync.OnceValues(s.newTLSConfig)
	return s
}

// Description returns the gate's description of when the Service was made.
func (s *Service) Description() *scaling.Service { return s.description }

// Passed returns the mark that requests carry in [PassedHeader] once they went through here: "namespace/name".
func (s *Service) Passed() string { return s.passed }

// TLS returns how endpoints of scaling.ProtocolHTTPS are spoken to, or what is wrong with the configuration for it.
func (s *Service) TLS() (*tls.Config, error) { return s.tls() }

// TellLate logs that a held request's time is over: the first one's, until a request is given an endpoint again. It is
// told what the request waited for (see [Service.WaitedFor]).
func (s *Service) TellLate(logger *zap.Logger, waitedFor string) {
	if !s.late.Swap(true) {
		logger.Warn("hold timed out", zap.Stringer("service", s.Gate.Key()), zap.String("missing", waitedFor),
			zap.Duration("timeout", s.description.Hold.Timeout))
	}
}

// InTime notes that a request was given an endpoint.
func (s *Service) InTime() {
	if s.late.Load() {
		s.late.Store(false)
	}
}

// WaitedFor returns what a request whose hold has timed out was missing, as far as the phases of the wake show: the end
// of a sentence.
func (s *Service) WaitedFor() string {
	wake := s.Gate.Wake()
	if wake == nil {
		return "the service to be scaled up"
	}
	switch wake.Phase {
	case scaling.PhaseScale:
		return "the service to be scaled up"
	case scaling.PhaseSchedule:
		return "a place for the service to run"
	case scaling.PhaseStart:
		return "the service's process to start"
	case scaling.PhaseReady:
		return "the service to become ready"
	case scaling.PhaseOver:
	}
	return "an endpoint with capacity to spare"
}

func (s *Service) newTLSConfig() (*tls.Config, error) {
	upstream := s.description.Upstream.TLS
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         upstream.ServerName,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
		InsecureSkipVerify: upstream.InsecureSkipVerify, //nolint:gosec // configured so, and off by default
	}
	if config.ServerName == "" {
		config.ServerName = s.Gate.Key().Name
	}
	if upstream.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(upstream.CA)) {
			return nil, fmt.Errorf("read CA of %s: %w", s.Gate.Key(), errNoCertificate)
		}
	}
	return config, nil
}

var errNoCertificate = errors.New("no certificate in it")
