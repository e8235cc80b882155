// Package keeper is the process that keeps one cluster: it starts the programs of a cluster in order, watches over them,
// stops and restarts them for tests, and takes everything away with it when it ends.
//
// # Two shapes
//
// A control plane (etcd, API server, controller manager) is ordinary child processes on loopback. It needs no
// privileges, and any number of them run side by side.
//
// A full cluster adds a node, and a node wants to own a machine: a kubelet mounts, a kube-proxy writes nftables rules,
// containers outlive who started them. So the keeper gives it one, made of namespaces. Its network namespace has no way
// out but one link to the host, so nothing that is sent to a pod or a Service can leave the machine. Its process,
// mount and network namespaces end with the first process in them: however the keeper dies, the kernel takes away every
// process, mount, link, route and rule. What is left for Remove to take away is a folder, some empty cgroups, and two
// routes by which the host refuses what nobody answers any more.
//
//	host                          │ namespaces of the cluster
//	keeper ── starts ─────────────┼─▶ init (process 1: reaps) ──▶ keeper of the node
//	  │                           │        ├─ etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//	  └─ link  10.240.0.1 ────────┼─ 10.240.0.2   the node: kubelet, kube-proxy, containerd
//	     routes for pods and      │        └─ bridge 10.244.0.1 ── pods 10.244.0.0/22
//	     Services over it         │           Services 10.96.0.0/16, by kube-proxy
//
// # Who may do what
//
// The cluster has a certificate authority of its own, and every part its own certificate: RBAC and the node authorizer
// decide as in any other cluster. etcd listens on a Unix socket in a folder that only its owner may enter.
package keeper
