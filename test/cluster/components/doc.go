// Package components builds the programs that a cluster consists of, and keeps them.
//
// Each folder below this one that has a go.mod pins one upstream project as a module of its own: kubernetes, etcd and
// coredns. What they require stays out of the product's go.mod. The folder pause is a program of ours.
//
// A [Cache] keeps an entry per program under a key made of all that decides what the program becomes: the folder's
// go.mod, go.sum and sources, the flags, the toolchain and the platform. An entry that is there is never looked at by the
// go command: finding it takes a few file system calls, because every test that starts a cluster begins with it. An
// entry that is not there is built aside and renamed into place, under a lock that the kernel takes away from a process
// that dies, so at any moment an entry is whole or absent, and nobody waits for the dead.
//
// The cache's folder holds:
//
//	entries/NAME-KEY/   a program or an image, and a file "whole" that says how long it is
//	building/           what is being built, and temporary files; leftovers are removed by the next build of the same name
//	locks/NAME          locked by who builds it, whose process id is in it
//	logs/NAME.log       the output of the last build, at most 1 MiB
package components
