package activator

import (
	"go.uber.org/zap"

	"github.com/dormouse-dev/dormouse/activator/route"
	"github.com/dormouse-dev/dormouse/activator/service"
	"github.com/dormouse-dev/dormouse/scaling"
)

// Adopt makes services the ones that are served, from the next request on; the others' requests are refused, held ones
// too. It returns the routes that cannot be accepted, and logs those that are new. It must not be called by two at once.
func (s *Server) Adopt(services []*scaling.Service) []route.Conflict {
	gates := s.config.Gates.Adopt(services)
	rules := make([]route.Rule[*service.Service], len(services))
	known := make(map[scaling.Key]*service.Service, len(services))
	for i, described := range services {
		key := described.Key
		known[key] = service.New(gates[i], s.config.Metrics.Service(key.Namespace, key.Name))
		rules[i] = route.Rule[*service.Service]{Service: described, Value: known[key]}
	}
	table, conflicts := route.Build(rules, s.config.Routes)
	s.engines.adopt(table)
	s.ports.lead(known)
	s.tell(conflicts)
	for key := range s.known {
		if known[key] == nil {
			s.config.Metrics.Forget(key.Namespace, key.Name)
		}
	}
	s.known = known
	return conflicts
}

// AdoptPorts makes these the ports that belong to one service each: whatever comes in there is for it, whatever its Host.
// They are opened soon after, though not before Run, and closed; [Server.Bound] tells. A port that cannot be opened is
// logged and tried again. Who is connected to a port that its service has lost is answered once more and told to close.
// Services are adopted before their ports: until then requests there get 404. It must not be called by two at once.
func (s *Server) AdoptPorts(ports map[int32]scaling.Key) {
	if s.config.MaxConnections == 0 {
		s.connections.most.Store(int64(mostConnections(len(ports))))
	}
	s.ports.adopt(ports)
}

// Bound reports whether the port is open for the service that AdoptPorts gave it to last.
func (s *Server) Bound(port int32) bool { return s.ports.bound(port) }

// tell logs the conflicts that there were not before.
func (s *Server) tell(conflicts []route.Conflict) {
	logged := make(map[route.Conflict]bool, len(conflicts))
	for _, c := range conflicts {
		logged[c] = true
		if !s.conflicts[c] {
			s.config.Logger.Warn("route not accepted", zap.Stringer("service", c.Service), zap.Stringer("conflict", c))
		}
	}
	s.conflicts = logged
}
