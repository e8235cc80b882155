package httpx

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

// Service is what a route leads to.
type Service struct {
	Gate    *hold.Gate
	Metrics *metrics.Service

	description *scaling.Service
	passed      string      // the mark that requests carry once they went through here
	late        atomic.Bool // a held request's time was over, and none has been given an endpoint since
	tls         func() (*tls.Config, error)
}

// NewService returns the Service for the gate's current description. A changed description makes a new Service.
func NewService(gate *hold.Gate, counters *metrics.Service) *Service {
	s := &Service{Gate: gate, Metrics: counters, description: gate.Service(), passed: gate.Key().String()}
	s.tls = sync.OnceValues(s.newTLSConfig)
	return s
}

// tellLate logs that a held request's time is over: the first one's, until a request is given an endpoint again.
func (s *Service) tellLate(logger *zap.Logger, waitedFor string) {
	if !s.late.Swap(true) {
		logger.Warn("hold timed out", zap.Stringer("service", s.Gate.Key()), zap.String("missing", waitedFor),
			zap.Duration("timeout", s.description.Hold.Timeout))
	}
}

// inTime notes that a request was given an endpoint.
func (s *Service) inTime() {
	if s.late.Load() {
		s.late.Store(false)
	}
}

// newTLSConfig returns how endpoints of scaling.ProtocolHTTPS are spoken to.
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
