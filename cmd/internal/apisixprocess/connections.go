package apisixprocess

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Connections returns how many connections are open on the ports of the traffic. The kernel knows that, and
// nothing else: nginx counts those of its own workers to each other, and of who asks for its status.
func (p *Process) Connections(context.Context) (int, error) {
	total := 0
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(table, "6") {
			continue // a host without IPv6
		}
		if err != nil {
			return 0, fmt.Errorf("apisix: connections: %w", err)
		}
		n, err := count(f, p.config.Ports)
		_ = f.Close()
		if err != nil {
			return 0, fmt.Errorf("apisix: connections: %s: %w", table, err)
		}
		total += n
	}
	return total, nil
}

// count reads a table of the kernel's (Documentation/networking/proc_net_tcp.rst): after a line of headings,
// a line for each socket, with the local address as ADDRESS:PORT and the state in hexadecimal.
func count(table io.Reader, ports []uint16) (int, error) {
	const (
		established = "01"
		closeWait   = "08" // the client has said all, and may be waiting for an answer
	)
	n := 0
	lines := bufio.NewScanner(table)
	lines.Scan() // the headings
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != established && fields[3] != closeWait {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		number, err := hex.DecodeString(port)
		if err != nil || len(number) != 2 {
			return 0, fmt.Errorf("%q is no address", fields[1])
		}
		if slices.Contains(ports, binary.BigEndian.Uint16(number)) {
			n++
		}
	}
	return n, lines.Err()
}
