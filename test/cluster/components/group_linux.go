package components

import "syscall"

// groupOfItsOwn also has the kernel kill the command when the thread that started it ends: a build must not go on
// when the test that wanted it was killed.
func groupOfItsOwn() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
