package local

import (
	"math"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/probe"
)

// serviceReader builds a Definition of what it reads.
type serviceReader struct {
	*reader
	*Definition

	// Where it stands what is compared with something else.
	self, name             value
	process, command, port value
	grpc                   value // readiness.grpc
	tls                    value // endpoint.tls
}

func (r *reader) service(v value) {
	if !v.isMapping() {
		v.fail("this must be a service, with at least a name and a process, not %s", v.kind())
		return
	}
	s := &serviceReader{reader: r, self: v, Definition: &Definition{
		Service: scaling.Service{
			Key:      scaling.Key{Namespace: "default"},
			Idle:     scaling.Idle{After: 5 * time.Minute},
			Hold:     scaling.Hold{Timeout: 2 * time.Minute, MaxRequests: 10_000, FailFast: true},
			Timeouts: scaling.Timeouts{Dial: time.Second},
		},
		Process: Process{Dir: r.dir, StopSignal: syscall.SIGTERM, StopGrace: 10 * time.Second},
	}}
	s.read()
	s.check()
	s.complete()
	r.file.Services = append(r.file.Services, s.Definition)
}

func (s *serviceReader) read() {
	service := &s.Definition.Service
	s.self.mapping(fields{
		"name": func(v value) {
			s.name = v
			label(&service.Key.Name, maxName)(v)
		},
		"namespace": label(&service.Key.Namespace, maxLabel),
		"process":   s.readProcess,
		"readiness": s.readReadiness,
		"routes":    func(v value) { v.list(s.readRoute) },
		"replicas": func(v value) {
			v.mapping(fields{
				"min":  replicas(&service.Replicas.Min),
				"wake": replicas(&service.Replicas.Wake),
				"max":  replicas(&service.Replicas.Max),
			})
			s.checkReplicas(v)
		},
		"idle": mapping(fields{
			"after":   duration(&service.Idle.After),
			"initial": boolean(&service.Idle.Initial),
		}),
		"hold": mapping(fields{
			"timeout":     duration(&service.Hold.Timeout),
			"maxRequests": number(&service.Hold.MaxRequests, math.MaxInt32),
			"failFast":    boolean(&service.Hold.FailFast),
		}),
		"endpoint": mapping(fields{
			"protocol":       protocol(&service.Upstream.Protocol),
			"maxConcurrency": number(&service.Upstream.MaxConcurrency, math.MaxInt32),
			"tls":            s.readUpstreamTLS,
		}),
		"timeouts": mapping(fields{
			"dial":           duration(&service.Timeouts.Dial),
			"responseHeader": duration(&service.Timeouts.ResponseHeader),
			"idle":           duration(&service.Timeouts.Idle),
			"total":          duration(&service.Timeouts.Total),
		}),
	})
}

func (s *serviceReader) readProcess(v value) {
	s.process = v
	process := &s.Definition.Process
	v.mapping(fields{
		"command": func(v value) {
			s.command = v
			if v.set() && v.isScalar() {
				v.fail(`this must be a list, such as [./shop, --fast]; for a line of shell use [sh, -c, "…"]`)
				return
			}
			v.list(func(v value) {
				var word string
				v.words(&word)
				process.Command = append(process.Command, word)
			})
		},
		"env":  s.readEnv,
		"dir":  s.path(&process.Dir),
		"port": s.readPort,
		"stopSignal": func(v value) {
			var name string
			if !v.text(&name) {
				return
			}
			if process.StopSignal = unix.SignalNum(name); process.StopSignal == 0 {
				v.fail("%q is not a signal; use its name, such as SIGTERM or SIGINT", name)
			}
		},
		"stopGrace": duration(&process.StopGrace),
	})
}

func (s *serviceReader) readEnv(v value) {
	env := make(map[string]string)
	v.entries(func(name string, v value) {
		switch {
		case name == "PORT":
			v.fail("the process is always given its port in PORT; set process.port to choose it")
		case name == "" || strings.ContainsAny(name, "=\x00"):
			v.fail("%q cannot be the name of an environment variable", name)
		}
		var text string
		v.words(&text)
		env[name] = text
	})
	if len(env) > 0 {
		s.Process.Env = env
	}
}

func (s *serviceReader) readPort(v value) {
	s.port = v
	number(&s.Process.Port, math.MaxUint16)(v)
	if s.Process.Port == 0 {
		return
	}
	if other, taken := s.ports[s.Process.Port]; taken {
		v.fail("%d is %s, too (line %d)", s.Process.Port, other.path, other.line)
		return
	}
	s.ports[s.Process.Port] = v
}

func (s *serviceReader) readReadiness(v value) {
	readiness := &s.Readiness
	kinds := 0
	kind := func(kind probe.Kind, read func(value)) func(value) {
		return func(v value) {
			if kinds++; kinds > 1 {
				v.fail("readiness is proven in one way: http, tcp or grpc")
			}
			readiness.Kind = kind
			read(v)
		}
	}
	v.mapping(fields{
		"http": kind(probe.HTTP, func(v value) {
			if !v.set() {
				v.fail("this must be a path, such as /healthz")
			}
			if v.text(&readiness.Path) && !strings.HasPrefix(readiness.Path, "/") {
				v.fail("%q is not a path; begin it with a slash, as in /healthz", readiness.Path)
			}
		}),
		"tcp": kind(probe.TCP, mapping(fields{})),
		"grpc": kind(probe.GRPC, func(v value) {
			s.grpc = v
			mapping(fields{"service": func(v value) { v.text(&readiness.Service) }})(v)
		}),
	})
}

func (s *serviceReader) readUpstreamTLS(v value) {
	s.tls = v
	tls := &s.Definition.Service.Upstream.TLS
	v.mapping(fields{
		"serverName":         func(v value) { v.text(&tls.ServerName) },
		"insecureSkipVerify": boolean(&tls.InsecureSkipVerify),
		"caFile": func(v value) {
			var name string
			s.path(&name)(v)
			if name == "" {
				return
			}
			ca, err := readCA(name)
			if err != nil {
				v.fail("%v", err)
			}
			tls.CA = ca
		},
	})
}

func protocol(to *scaling.Protocol) func(value) {
	return func(v value) {
		var word string
		if !v.text(&word) {
			return
		}
		var known []string
		for p := scaling.ProtocolAuto; p <= scaling.ProtocolHTTPS; p++ {
			if known = append(known, p.String()); word == p.String() {
				*to = p
				return
			}
		}
		v.fail("%q is not a protocol; %s", word, hint(word, known))
	}
}
