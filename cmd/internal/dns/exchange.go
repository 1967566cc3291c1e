package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// maxPayload is the size of responses over UDP that is offered to servers (EDNS0): what goes through
// any path without fragments, as DNS flag day 2020 recommends.
const maxPayload = 1232

// records are the answer to one question.
type records struct {
	addresses []netip.Addr
	// ttl is the least time to live of the records that led to the addresses; 0 without addresses.
	ttl time.Duration
}

// rcodeError is a response that is no answer.
type rcodeError struct{ dnsmessage.RCode }

// rcodes are the names that people know response codes by.
var rcodes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

func (e rcodeError) Error() string {
	if name, ok := rcodes[e.RCode]; ok {
		return name
	}
	return fmt.Sprintf("response code %d", e.RCode)
}

var (
	errTruncated = errors.New("truncated")
	errNotAnswer = errors.New("not an answer to the question")
)

// query asks one server for the addresses of an absolute name. A name that does not exist, and one
// without addresses of the type, have an empty answer.
func query(ctx context.Context, server, name string, t dnsmessage.Type, useTCP bool) (records, error) {
	owner, err := dnsmessage.NewName(name)
	if err != nil {
		return records{}, err
	}
	question := dnsmessage.Question{Name: owner, Type: t, Class: dnsmessage.ClassINET}
	id, message, err := pack(question)
	if err != nil {
		return records{}, err
	}
	if !useTCP {
		found, err := overUDP(ctx, server, id, question, message)
		if !errors.Is(err, errTruncated) {
			return found, stable(err)
		}
	}
	found, err := overTCP(ctx, server, id, question, message)
	return found, stable(err)
}

// pack makes a query with a random id, which with the random port is what tells answers from forgeries.
func pack(question dnsmessage.Question) (id uint16, message []byte, err error) {
	var random [2]byte
	if _, err = rand.Read(random[:]); err != nil {
		return 0, nil, err
	}
	id = binary.BigEndian.Uint16(random[:])
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	var options dnsmessage.ResourceHeader
	err = errors.Join(
		b.StartQuestions(), b.Question(question), b.StartAdditionals(),
		options.SetEDNS0(maxPayload, dnsmessage.RCodeSuccess, false),
		b.OPTResource(options, dnsmessage.OPTResource{}),
	)
	if err != nil {
		return 0, nil, err
	}
	message, err = b.Finish()
	return id, message, err
}

// dial returns a connection that fails when ctx ends.
func dial(ctx context.Context, network, server string) (conn net.Conn, release func(), err error) {
	var d net.Dialer
	if conn, err = d.DialContext(ctx, network, server); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

func overUDP(ctx context.Context, server string, id uint16, question dnsmessage.Question, message []byte) (records, error) {
	conn, release, err := dial(ctx, "udp", server)
	if err != nil {
		return records{}, err
	}
	defer release()
	if _, err := conn.Write(message); err != nil {
		return records{}, err
	}
	buffer := make([]byte, 4096) // some servers send more than was offered
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return records{}, err
		}
		// What does not fit the question may be late or forged: the answer may still come.
		if found, err := parse(buffer[:n], id, question); !errors.Is(err, errNotAnswer) {
			return found, err
		}
	}
}

func overTCP(ctx context.Context, server string, id uint16, question dnsmessage.Question, message []byte) (records, error) {
	conn, release, err := dial(ctx, "tcp", server)
	if err != nil {
		return records{}, err
	}
	defer release()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
		return records{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return records{}, err
	}
	response := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, response); err != nil {
		return records{}, err
	}
	found, err := parse(response, id, question)
	if errors.Is(err, errTruncated) {
		return records{}, errNotAnswer // TCP truncates nothing
	}
	return found, err
}

// parse reads a response. It returns errNotAnswer for what is no response to the question.
func parse(response []byte, id uint16, question dnsmessage.Question) (records, error) {
	var p dnsmessage.Parser
	header, err := p.Start(response)
	if err != nil || !header.Response || header.ID != id {
		return records{}, errNotAnswer
	}
	asked, err := p.AllQuestions()
	// A server that fails may leave the question out.
	if err != nil || len(asked) > 1 || len(asked) == 0 && header.RCode == dnsmessage.RCodeSuccess ||
		len(asked) == 1 && (asked[0].Type != question.Type || asked[0].Class != question.Class || !sameName(asked[0].Name, question.Name)) {
		return records{}, errNotAnswer
	}
	switch {
	case header.RCode == dnsmessage.RCodeNameError:
		return records{}, nil
	case header.RCode != dnsmessage.RCodeSuccess:
		return records{}, rcodeError{header.RCode}
	case header.Truncated:
		return records{}, errTruncated
	}
	found, err := answers(&p, question.Name)
	if err != nil {
		return records{}, fmt.Errorf("malformed response: %w", err)
	}
	return found, nil
}

// answers collects the addresses of a name and of what it is an alias of. Records of other names have
// no business in a response.
func answers(p *dnsmessage.Parser, name dnsmessage.Name) (records, error) {
	var found records
	owners := []dnsmessage.Name{name}
	least := time.Duration(-1)
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return records{}, err
		}
		ours := h.Class == dnsmessage.ClassINET && slices.ContainsFunc(owners, func(n dnsmessage.Name) bool { return sameName(n, h.Name) })
		switch {
		case ours && h.Type == dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return records{}, err
			}
			found.addresses = append(found.addresses, netip.AddrFrom4(r.A))
		case ours && h.Type == dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return records{}, err
			}
			found.addresses = append(found.addresses, netip.AddrFrom16(r.AAAA))
		case ours && h.Type == dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return records{}, err
			}
			owners = append(owners, r.CNAME)
		default:
			if err := p.SkipAnswer(); err != nil {
				return records{}, err
			}
			continue
		}
		if ttl := time.Duration(h.TTL) * time.Second; least < 0 || ttl < least {
			least = ttl
		}
	}
	if len(found.addresses) > 0 {
		found.ttl = least
	}
	return found, nil
}

func sameName(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }

// stable makes equal failures equal texts: errors of package net name the port that was picked.
func stable(err error) error {
	var op *net.OpError
	var syscallError *os.SyscallError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &syscallError):
		return syscallError.Err
	case errors.As(err, &op):
		return op.Err
	}
	return err
}
