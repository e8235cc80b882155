// Package certs has the certificate of the control port: where it comes from, that it is replaced before it ends, and
// that connections use the one that is current.
//
// A [Source] is what listeners and dialers use. It is filled by a [Keeper], which makes certificates itself and shares them
// with the other activators in a Secret, or by [Files], which somebody else replaces, such as cert-manager.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
)

var errNone = errors.New("there is no certificate yet")

// Source is a certificate with its key and the authorities that others' certificates are compared with. Its methods may be
// called by anybody at any time.
type Source struct {
	name    string
	current atomic.Pointer[material]
}

// material is immutable.
type material struct {
	certificate tls.Certificate
	roots       *x509.CertPool
}

// NewSource returns a Source that has nothing yet. name is the DNS name that all certificates are for: the control
// Service's.
func NewSource(name string) *Source { return &Source{name: name} }

// Load replaces everything, from PEM; connections that are open are not touched. If the parts do not belong together,
// nothing is replaced, and the error says why.
func (s *Source) Load(certificate, key, authorities []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return errors.New("read authorities: there is no certificate")
	}
	s.current.Store(&material{pair, roots})
	return nil
}

// Ready reports whether there is a certificate.
func (s *Source) Ready() bool { return s.current.Load() != nil }

// Server returns what a listener uses. Each handshake takes the certificate that is current; before there is one, it
// fails. Only HTTP/1.1 is spoken: streams between activators begin with an Upgrade, which HTTP/2 does not have.
func (s *Source) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if m := s.current.Load(); m != nil {
				return &m.certificate, nil
			}
			return nil, errNone
		},
	}
}

// Client returns what one connection is made with: it is to be asked for anew for each. Before there are authorities
// nobody is trusted.
func (s *Source) Client() *tls.Config {
	roots := x509.NewCertPool() // not nil, which would be the system's
	if m := s.current.Load(); m != nil {
		roots = m.roots
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: s.name}
}
