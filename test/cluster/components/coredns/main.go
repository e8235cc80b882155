// Command coredns is CoreDNS with the plugins that a cluster on one machine has a use for. Those left out (cloud
// providers, forwarding, DNSSEC) are most of its dependencies, and a cluster that cannot reach the Internet would
// never use them.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	coremain.Run()
}
