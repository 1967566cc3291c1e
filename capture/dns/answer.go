package dns

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// timeToLive is short, for what istiod knows changes; Istio's agent has the same.
	timeToLive = 30
	// payload is the size of queries over UDP that is offered (EDNS).
	payload = 4096
)

// rcodeBadVersion answers a version of EDNS that is not known (RFC 6891 6.1.3).
const rcodeBadVersion dnsmessage.RCode = 16

// refuse makes a response without a question or an answer.
func refuse(message []byte, code dnsmessage.RCode) []byte {
	response := make([]byte, headerLength)
	copy(response, message[:4])
	response[2] |= flagResponse
	response[3] = byte(code)
	return response
}

// fail makes a response that repeats the question, as clients like to see it.
func (q *query) fail(code dnsmessage.RCode) []byte {
	response, err := q.respond(code, nil, "", 0)
	if err != nil {
		return refuse(q.message, code)
	}
	return response
}

// answer makes the response from the table to a query for A or AAAA: the addresses of that family. A name
// that has none of it exists all the same (NODATA): clients that ask for both families at once would
// take a "no such name" for either as one for both.
//
// Every response begins with another address, so that clients, which take the first, spread over
// those of a headless service.
func (q *query) answer(found *addresses, alias string) ([]byte, error) {
	var all []dnsmessage.ResourceBody
	if q.kind == dnsmessage.TypeA {
		for _, ip := range rotate(found.v4) {
			all = append(all, &dnsmessage.AResource{A: ip})
		}
	} else {
		for _, ip := range rotate(found.v6) {
			all = append(all, &dnsmessage.AAAAResource{AAAA: ip})
		}
	}
	if len(all) == 0 {
		alias = ""
	}
	for keep := len(all); ; {
		response, err := q.respond(dnsmessage.RCodeSuccess, all[:keep], alias, len(all)-keep)
		if err != nil || len(response) <= q.limit {
			return response, err
		}
		if keep == 0 {
			return nil, errors.New("the question alone is too large")
		}
		keep = max(keep-1-(len(response)-q.limit)/32, 0)
	}
}

func rotate[T any](list []T) []T {
	if len(list) < 2 {
		return list
	}
	first := rand.IntN(len(list)) //nolint:gosec // spreading load needs no secret randomness
	return append(append(make([]T, 0, len(list)), list[first:]...), list[:first]...)
}

// respond makes a response; left is the number of answers that had to be left out.
func (q *query) respond(code dnsmessage.RCode, answers []dnsmessage.ResourceBody, alias string, left int) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, err
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, minUDPSize), dnsmessage.Header{
		ID: q.id, Response: true, Authoritative: code == dnsmessage.RCodeSuccess, Truncated: left > 0,
		RecursionDesired: q.message[2]&1 != 0, RecursionAvailable: true, RCode: code & rcodeMask,
	})
	b.EnableCompression()
	errs := []error{
		b.StartQuestions(), b.Question(dnsmessage.Question{Name: name, Type: q.kind, Class: q.class}), b.StartAnswers(),
	}
	if alias != "" {
		target, err := dnsmessage.NewName(alias)
		if err != nil {
			return nil, err
		}
		errs = append(errs, b.CNAMEResource(head(name), dnsmessage.CNAMEResource{CNAME: target}))
		name = target
	}
	for _, answer := range answers {
		switch r := answer.(type) {
		case *dnsmessage.AResource:
			err = b.AResource(head(name), *r)
		case *dnsmessage.AAAAResource:
			err = b.AAAAResource(head(name), *r)
		}
		errs = append(errs, err)
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		errs = append(errs, h.SetEDNS0(payload, code, q.dnssec), b.StartAdditionals(), b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return b.Finish()
}

func head(name dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: timeToLive}
}

// setID makes a response that of a query.
func setID(message []byte, id uint16) { binary.BigEndian.PutUint16(message, id) }
