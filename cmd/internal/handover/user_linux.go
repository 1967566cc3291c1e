package handover

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// checkUser refuses a peer of another user: the sockets, and what is in the store, are this user's.
func checkUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var credentials *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("who is at the other end: %w", failed)
	}
	if int(credentials.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d belongs to user %d, and this one to user %d", credentials.Pid, credentials.Uid, os.Geteuid())
	}
	return nil
}
