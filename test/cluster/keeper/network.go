package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

const (
	nodeLink = "host0" // the node's end of its link to the host
	bridge   = "pods0" // what pods are attached to
)

// hostLink is the host's end of the link; its name tells clusters apart.
func (c Config) hostLink() string { return "dm-" + c.id() }

// linkHost makes the link between the host and the network namespace of a process, and routes on the host to what is
// behind it. They end with the namespace.
func linkHost(ctx context.Context, cfg Config, pid int) error {
	if err := checkRoutes(ctx, cfg); err != nil {
		return err
	}
	if err := os.WriteFile(cfg.path("routed"), nil, 0o600); err != nil {
		return err
	}
	link := cfg.hostLink()
	via := cfg.nodeAddress().String()
	err := command(ctx, "link the node to the host", [][]string{
		append([]string{"ip", "route", "add"}, barrier(cfg.Ranges.Pods)...),
		append([]string{"ip", "route", "add"}, barrier(cfg.Ranges.Services)...),
		{"ip", "link", "add", link, "type", "veth", "peer", "name", nodeLink, "netns", pidArgument(pid)},
		{"ip", "address", "add", netip.PrefixFrom(cfg.hostAddress(), cfg.Ranges.Node.Bits()).String(), "dev", link},
		{"ip", "link", "set", link, "up"},
		{"ip", "route", "add", cfg.Ranges.Pods.String(), "via", via},
		{"ip", "route", "add", cfg.Ranges.Services.String(), "via", via},
	})
	if err != nil {
		return fmt.Errorf("%w (does the kernel have veth links?)", err)
	}
	return checkWay(ctx, cfg)
}

// barrier is the route, worse than any other, that addresses of a range take when the link is not there: so they do not
// leave the machine by its default route, even if the keeper was killed and somebody goes on asking.
func barrier(network netip.Prefix) []string {
	return []string{"unreachable", network.String(), "metric", "4278198272", "proto", "178"}
}

// checkWay fails if the host, for a reason that its routes do not show, sends addresses of the cluster elsewhere.
func checkWay(ctx context.Context, cfg Config) error {
	for _, wanted := range cfg.Ranges.flags() {
		addr := nth(wanted.network, 2).String()
		out, err := exec.CommandContext(ctx, "ip", "-json", "route", "get", addr).Output()
		if err != nil {
			return fmt.Errorf("ask for the way to %s: %w", addr, err)
		}
		var way []struct{ Dev string }
		if err := json.Unmarshal(out, &way); err != nil {
			return fmt.Errorf("ask for the way to %s: %w", addr, err)
		}
		if len(way) != 1 || way[0].Dev != cfg.hostLink() {
			return fmt.Errorf("%s %s is in use: a rule of this host sends it elsewhere, see 'ip route get %s' (a VPN?); choose another range",
				wanted.flag, wanted.network, addr)
		}
	}
	return nil
}

// unlinkHost removes the link and the routes, if this cluster has made them.
func unlinkHost(ctx context.Context, cfg Config) error {
	if _, err := os.Stat(cfg.path("routed")); err != nil {
		return nil //nolint:nilerr // it has not
	}
	var errs []error
	if _, err := net.InterfaceByName(cfg.hostLink()); err == nil {
		errs = append(errs, command(ctx, "remove the link between node and host", [][]string{{"ip", "link", "delete", cfg.hostLink()}}))
	}
	for _, network := range []netip.Prefix{cfg.Ranges.Pods, cfg.Ranges.Services} {
		err := command(ctx, "remove a route", [][]string{append([]string{"ip", "route", "delete"}, barrier(network)...)})
		if err != nil && !strings.Contains(err.Error(), "No such process") { // as the kernel says that there is none
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(cfg.path("routed"))
}

// checkRoutes fails if the host sends addresses of the cluster's ranges somewhere already.
func checkRoutes(ctx context.Context, cfg Config) error {
	out, err := exec.CommandContext(ctx, "ip", "-json", "-4", "route", "show").Output()
	if err != nil {
		return fmt.Errorf("read the host's routes: %w", err)
	}
	var routes []struct{ Dst, Dev string }
	if err := json.Unmarshal(out, &routes); err != nil {
		return fmt.Errorf("read the host's routes: %w", err)
	}
	for _, route := range routes {
		taken, err := netip.ParsePrefix(route.Dst)
		if err != nil {
			addr, err := netip.ParseAddr(route.Dst)
			if err != nil {
				continue // "default"
			}
			taken = netip.PrefixFrom(addr, addr.BitLen())
		}
		for _, wanted := range cfg.Ranges.flags() {
			if taken.Overlaps(wanted.network) {
				return fmt.Errorf("%s %s is in use: this host routes %s to %s (is another cluster up?); choose another range",
					wanted.flag, wanted.network, taken, route.Dev)
			}
		}
	}
	return nil
}

// prepareNetwork sets up the node's end of the link and the bridge. Addresses of pods and Services that are nobody's
// stay on the bridge, and there is no default route: nothing that is sent from here leaves the machine.
func prepareNetwork(ctx context.Context, cfg Config) error {
	if err := command(ctx, "set up the node's network", [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "add", netip.PrefixFrom(cfg.nodeAddress(), cfg.Ranges.Node.Bits()).String(), "dev", nodeLink},
		{"ip", "link", "set", nodeLink, "up"},
	}); err != nil {
		return err
	}
	if err := command(ctx, "set up the network of the pods", [][]string{
		{"ip", "link", "add", bridge, "type", "bridge"},
		{"ip", "address", "add", netip.PrefixFrom(cfg.bridgeAddress(), cfg.Ranges.Pods.Bits()).String(), "dev", bridge},
		{"ip", "link", "set", bridge, "up"},
		{"ip", "route", "add", cfg.Ranges.Services.String(), "dev", bridge},
	}); err != nil {
		return fmt.Errorf("%w (does the kernel have bridges?)", err)
	}
	// kube-proxy would only say in its log that this does not work.
	if err := command(ctx, "try what kube-proxy needs", [][]string{
		{"nft", "add table ip dormouse-check; delete table ip dormouse-check"},
	}); err != nil {
		return fmt.Errorf("%w (does the kernel have nf_tables?)", err)
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward": "1",
		// Services are routed to the bridge that pods send from, which is no reason to tell pods of a shorter way: one
		// that believes it does not hear that a Service without endpoints refuses.
		"net/ipv4/conf/all/send_redirects":            "0",
		"net/ipv4/conf/" + bridge + "/send_redirects": "0",
		// A client that asks a sleeping Service again and again is to be refused every time, not once a second.
		"net/ipv4/icmp_ratelimit": "0",
		// A connection that nobody answers any more keeps this namespace for as long as it is tried: some minutes.
		"net/ipv4/tcp_orphan_retries": "1",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o600); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// Otherwise a pod that calls itself or a neighbour through a Service gets answers from the wrong address.
	if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("let bridged packets pass through kube-proxy's rules (does the kernel have br_netfilter? try modprobe br_netfilter): %w", err)
	}
	return nil
}

// command runs commands, one after the other, until one fails.
func command(ctx context.Context, what string, commands [][]string) error {
	for _, argv := range commands {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			line := strings.Join(argv, " ")
			return fmt.Errorf("%s: %s: %w: %s", what, line, err, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return nil
}
