//go:build !linux

package cluster

import (
	"context"
	"io"
	"runtime"
	"syscall"
)

func detachedAttributes() *syscall.SysProcAttr { return nil }

func checkOwner(string) error { return unsupported(runtime.GOOS) }

func freeSpace(string) (uint64, error) { return 0, unsupported(runtime.GOOS) }

func checkTrust(string) error { return unsupported(runtime.GOOS) }

func lock(context.Context, string, io.Writer) (func(), error) { return nil, unsupported(runtime.GOOS) }
