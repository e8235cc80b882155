package local

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// The longest names: a service's leaves room for what is added to it in a DNS label.
const (
	maxLabel = 63
	maxName  = 53
)

// check looks whether what was read fits together, and with the services before.
func (s *serviceReader) check() {
	service := &s.Definition.Service
	s.checkCommand()
	if protocol := service.Upstream.Protocol; s.Readiness.Kind == probe.GRPC && protocol != scaling.ProtocolAuto && protocol != scaling.ProtocolH2C {
		s.grpc.fail("readiness is asked for by gRPC in clear text, which endpoint.protocol %v is not; use http or tcp", protocol)
	}
	if s.tls.set() && service.Upstream.Protocol != scaling.ProtocolHTTPS {
		s.tls.fail("this is of no effect unless endpoint.protocol is HTTPS")
	}
	s.checkPort()

	if !s.name.set() {
		s.self.missing("name", "it is what the service is called")
	}
}

func (s *serviceReader) checkCommand() {
	command := s.Definition.Process.Command
	switch {
	case s.process.node == nil:
		s.self.missing("process", "it says what to run")
	case s.process.set() && !s.process.isMapping(), s.command.set() && !s.command.isList():
		// Somebody was told already what is wrong with it.
	case len(command) == 0:
		s.process.missing("command", "it is what to run, such as [./shop, --fast]")
	case command[0] == "":
		s.command.fail("its first word, the program, is empty")
	}
}

func (s *serviceReader) checkReplicas(v value) {
	r := s.Definition.Service.Replicas
	switch {
	case r.Max > 0 && r.Min > r.Max:
		v.fail("min, %d, is more than max, %d", r.Min, r.Max)
	case r.Max > 0 && r.Wake > r.Max:
		v.fail("wake, %d, is more than max, %d", r.Wake, r.Max)
	case r.Wake > 0 && r.Wake < r.Min:
		v.fail("wake, %d, is less than min, %d", r.Wake, r.Min)
	}
}

func (s *serviceReader) checkPort() {
	r := s.Definition.Service.Replicas
	if most := max(r.Min, r.Wake, r.Max); s.Process.Port != 0 && most > 1 {
		s.port.fail("%d replicas cannot all listen on port %d; leave the port out, and each has its own", most, s.Process.Port)
	}
}

// label takes a DNS label (RFC 1123).
func label(to *string, longest int) func(value) {
	return func(v value) {
		var name string
		if !v.text(&name) {
			return
		}
		if !isLabel(name) || len(name) > longest {
			v.fail("%q is not a name; use up to %d small letters, digits and hyphens, with no hyphen at its ends", name, longest)
			return
		}
		*to = name
	}
}

func isLabel(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}

// readCA reads certificates in PEM. It refuses what is no plain file, whose end might never come.
func readCA(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	pem, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return "", err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return "", errors.New(name + " has no certificate in PEM form")
	}
	return string(pem), nil
}
