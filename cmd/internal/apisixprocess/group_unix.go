//go:build unix

package apisixprocess

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup makes the command the leader of a process group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// quit asks nginx to finish what is in flight.
func quit(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }

// terminate asks nginx to end without that.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// killGroup ends all processes of the command's group.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func isKilled(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
