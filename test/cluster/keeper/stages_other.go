//go:build !linux

package keeper

import (
	"errors"
	"syscall"
)

var errLinux = errors.New("a cluster needs Linux")

func childAttributes() *syscall.SysProcAttr { return nil }

func namespaceAttributes() *syscall.SysProcAttr { return nil }

func runInit([]string) error { return errLinux }

func prepareMounts(Config) error { return errLinux }

func hideSettings(Config) error { return errLinux }
