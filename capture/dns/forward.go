package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// attempts is how often a nameserver that says nothing is asked, as by the C library.
	attempts = 2
	// stagger is the time after which a nameserver that has said nothing is not relied on alone.
	stagger = time.Second
	// logInterval is the least time between two reports of failures.
	logInterval = 10 * time.Second
)

// forwarder asks nameservers what the application asked.
type forwarder struct {
	resolvConf *resolvConf
	parallel   bool
	timeout    time.Duration
	metrics    *metrics
	logger     *slog.Logger
	logged     atomic.Int64 // when a failure was last logged, in Unix nanoseconds
}

// result is what a nameserver said, or why it did not.
type result struct {
	server   netip.AddrPort
	response []byte
	err      error
}

// forward returns the response of the first nameserver that has one, under the id of the query. Those
// that refuse or fail are believed only where no other one knows better.
func (f *forwarder) forward(ctx context.Context, q *query, network string) ([]byte, error) {
	started := time.Now()
	defer func() { f.metrics.upstream.Observe(time.Since(started).Seconds()) }()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()

	servers := f.resolvConf.get(ctx).servers
	var targets []netip.AddrPort
	for range attempts {
		targets = append(targets, servers...)
	}
	results := make(chan result, len(targets)) // nobody waits for those that come too late
	asked, waiting := 0, 0
	done := map[netip.AddrPort]bool{} // nameservers that are of no more use
	next := func() {
		for ; asked < len(targets); asked++ {
			if server := targets[asked]; !done[server] {
				asked++
				waiting++
				go func() { results <- f.ask(ctx, q, server, network) }()
				return
			}
		}
	}
	next()
	for f.parallel && asked < len(servers) {
		next()
	}
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var failure []byte
	errs := []error{errors.New("no nameserver answered")}
	for waiting > 0 {
		select {
		case r := <-results:
			waiting--
			switch {
			case r.err != nil:
				errs = append(errs, fmt.Errorf("nameserver %s: %w", r.server, r.err))
			case !failed(r.response):
				return r.response, nil
			case failure == nil:
				failure = r.response
			}
			done[r.server] = done[r.server] || r.err == nil || errors.Is(r.err, errMalformed)
			next()
			timer.Reset(stagger)
		case <-timer.C:
			next()
			timer.Reset(stagger)
		}
	}
	if failure != nil {
		return failure, nil
	}
	err := errors.Join(errs...)
	f.report(ctx, q, err)
	return nil, err
}

// failed tells whether another nameserver may know better.
func failed(response []byte) bool {
	return slices.Contains([]dnsmessage.RCode{
		dnsmessage.RCodeServerFailure, dnsmessage.RCodeNotImplemented, dnsmessage.RCodeRefused,
	}, dnsmessage.RCode(response[3]&rcodeMask))
}

// report logs a failure now and then: with nameservers down, every query fails.
func (f *forwarder) report(ctx context.Context, q *query, err error) {
	now, last := time.Now().UnixNano(), f.logged.Load()
	if now-last < int64(logInterval) || !f.logged.CompareAndSwap(last, now) || errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	f.logger.LogAttrs(ctx, slog.LevelWarn, "a query could not be forwarded", slog.String("name", q.name),
		slog.String("type", q.kind.String()), slog.Any("error", err))
}

// ask asks one nameserver over the network that the application used. What does not fit a datagram is
// asked for again over TCP where the application would take more: some nameservers send less than
// they are allowed to, and some applications cannot do it themselves.
func (f *forwarder) ask(ctx context.Context, q *query, server netip.AddrPort, network string) result {
	r := result{server: server}
	if r.response, r.err = exchange(ctx, q, server, network); r.err != nil || network != "udp" {
		return r
	}
	if r.response[2]&flagTruncated != 0 && q.limit > minUDPSize {
		if whole, err := exchange(ctx, q, server, "tcp"); err == nil {
			r.response = whole
		}
	}
	return r
}

// exchange sends the query as it is but for a random id of its own, which with the random port is what
// tells answers from forgeries.
func exchange(ctx context.Context, q *query, server netip.AddrPort, network string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, plain(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var random [2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	id := binary.BigEndian.Uint16(random[:])
	message := slices.Clone(q.message)
	setID(message, id)
	var response []byte
	if network == "udp" {
		response, err = overUDP(conn, q, id, message)
	} else {
		response, err = overTCP(conn, q, id, message)
	}
	if err != nil {
		return nil, plain(err)
	}
	setID(response, q.id)
	return response, nil
}

func overUDP(conn net.Conn, q *query, id uint16, message []byte) ([]byte, error) {
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	buffer := make([]byte, max(q.limit, payload))
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		// What does not fit the question may be late or forged: the answer may still come.
		if q.answeredBy(buffer[:n], id) {
			return buffer[:n], nil
		}
	}
}

func overTCP(conn net.Conn, q *query, id uint16, message []byte) ([]byte, error) {
	if err := writeFramed(conn, message); err != nil {
		return nil, err
	}
	response, err := readFramed(conn)
	if err != nil {
		return nil, err
	}
	if !q.answeredBy(response, id) {
		return nil, errMalformed
	}
	return response, nil
}

// writeFramed and readFramed are the form of messages over TCP: their length comes first.
func writeFramed(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message))), message...))
	return err
}

func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

// plain leaves out what package net adds: the addresses, of which the port is another each time.
func plain(err error) error {
	var op *net.OpError
	var call *os.SyscallError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &call):
		return call.Err
	case errors.As(err, &op):
		return op.Err
	}
	return err
}
