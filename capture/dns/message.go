package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes and places of DNS messages (RFC 1035 4, RFC 6891 6).
const (
	headerLength   = 12
	maxNameLength  = 255
	minUDPSize     = 512
	maxMessage     = 65535
	maxUDPSize     = 65507
	questionFixed  = 4  // type and class
	recordFixed    = 10 // type, class, time to live and length
	flagResponse   = 0x80
	flagTruncated  = 0x02
	opcodeMask     = 0x78
	rcodeMask      = 0x0f
	questionCount  = 4 // offsets in the header
	answerCount    = 6
	authorityCount = 8
	extraCount     = 10
)

var errMalformed = errors.New("malformed message")

// query is a message that asks one question.
type query struct {
	message  []byte // as received
	id       uint16
	name     string // as asked, with the final dot
	kind     dnsmessage.Type
	class    dnsmessage.Class
	question []byte // in message
	edns     bool
	dnssec   bool // the OK bit of EDNS, which answers repeat
	version  byte // of EDNS
	limit    int  // of the answer
}

// fault is why a message gets no answer but a response code; a negative one is not even that.
type fault int

const (
	faultNone   fault = 0
	faultSilent fault = -1 // a response, or less than a header: answering could go on for ever
	faultFormat fault = fault(dnsmessage.RCodeFormatError)
	faultOpcode fault = fault(dnsmessage.RCodeNotImplemented)
)

// parseQuery reads a message of the application. The query refers to its memory.
func parseQuery(message []byte, overUDP bool) (query, fault) {
	if len(message) < headerLength || message[2]&flagResponse != 0 {
		return query{}, faultSilent
	}
	if message[2]&opcodeMask != 0 {
		return query{}, faultOpcode
	}
	if binary.BigEndian.Uint16(message[questionCount:]) != 1 {
		return query{}, faultFormat
	}
	q := query{message: message, id: binary.BigEndian.Uint16(message), limit: maxMessage}
	name, end, err := readName(message, headerLength)
	if err != nil || end+questionFixed > len(message) {
		return query{}, faultFormat
	}
	q.name = name
	q.kind = dnsmessage.Type(binary.BigEndian.Uint16(message[end:]))
	q.class = dnsmessage.Class(binary.BigEndian.Uint16(message[end+2:]))
	q.question = message[headerLength : end+questionFixed]

	size := 0
	err = eachRecord(message, end+questionFixed, func(r record) error {
		if r.section != extraCount || r.kind != dnsmessage.TypeOPT {
			return nil
		}
		if q.edns {
			return errMalformed // one at most
		}
		q.edns, size = true, int(r.class)
		q.version, q.dnssec = byte(r.ttl>>16), r.ttl&0x8000 != 0
		return nil
	})
	if err != nil {
		return query{}, faultFormat
	}
	if overUDP {
		q.limit = min(max(size, minUDPSize), maxUDPSize)
	}
	return q, faultNone
}

// readName reads the name of a question, which is spelled out, for there is nothing before it.
func readName(message []byte, at int) (name string, end int, err error) {
	var b strings.Builder
	for {
		if at >= len(message) {
			return "", 0, errMalformed
		}
		length := int(message[at])
		at++
		if length == 0 {
			break
		}
		if length > 63 || at+length > len(message) || b.Len()+length+1 >= maxNameLength {
			return "", 0, errMalformed
		}
		label := message[at : at+length]
		if bytes.IndexByte(label, '.') >= 0 {
			return "", 0, errMalformed // it could be taken for another name
		}
		b.Write(label)
		b.WriteByte('.')
		at += length
	}
	if b.Len() == 0 {
		return ".", at, nil
	}
	return b.String(), at, nil
}

// record is the place of a resource record in a message.
type record struct {
	section    int // the offset of its section's count
	start, end int
	kind       dnsmessage.Type
	class      uint16
	ttl        uint32
}

// eachRecord yields the records after the question. Names in them are not looked at but for their end.
func eachRecord(message []byte, at int, yield func(record) error) error {
	for _, section := range []int{answerCount, authorityCount, extraCount} {
		for range binary.BigEndian.Uint16(message[section:]) {
			r := record{section: section, start: at}
			var err error
			if at, err = skipName(message, at); err != nil {
				return err
			}
			if at+recordFixed > len(message) {
				return errMalformed
			}
			r.kind = dnsmessage.Type(binary.BigEndian.Uint16(message[at:]))
			r.class = binary.BigEndian.Uint16(message[at+2:])
			r.ttl = binary.BigEndian.Uint32(message[at+4:])
			at += recordFixed + int(binary.BigEndian.Uint16(message[at+8:]))
			if at > len(message) {
				return errMalformed
			}
			r.end = at
			if err := yield(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func skipName(message []byte, at int) (int, error) {
	for at < len(message) {
		switch length := int(message[at]); {
		case length == 0:
			return at + 1, nil
		case length >= 0xc0: // the rest is elsewhere
			if at+2 > len(message) {
				return 0, errMalformed
			}
			return at + 2, nil
		case length > 63:
			return 0, errMalformed
		default:
			at += 1 + length
		}
	}
	return 0, errMalformed
}

// answeredBy tells whether a message of a nameserver is the answer to the query, sent under that id.
func (q *query) answeredBy(response []byte, id uint16) bool {
	if len(response) < headerLength || response[2]&flagResponse == 0 || binary.BigEndian.Uint16(response) != id {
		return false
	}
	questions := binary.BigEndian.Uint16(response[questionCount:])
	if questions == 0 {
		return response[3]&rcodeMask != 0 // a nameserver that fails may leave the question out
	}
	n := len(q.question)
	if questions != 1 || len(response) < headerLength+n {
		return false
	}
	asked := response[headerLength : headerLength+n]
	// Names alone have a case: that of the bytes of type and class would be one of chance.
	return lower(string(asked[:n-questionFixed])) == lower(string(q.question[:n-questionFixed])) &&
		string(asked[n-questionFixed:]) == string(q.question[n-questionFixed:])
}

// fit cuts a response to a size, at the end of a record, and keeps EDNS' own. It is marked as truncated
// where an answer is missing.
func fit(response []byte, limit int) ([]byte, error) {
	if len(response) <= limit {
		return response, nil
	}
	if len(response) < headerLength {
		return nil, errMalformed
	}
	at := headerLength
	for range binary.BigEndian.Uint16(response[questionCount:]) {
		end, err := skipName(response, at)
		if err != nil || end+questionFixed > len(response) {
			return nil, errMalformed
		}
		at = end + questionFixed
	}
	var options []byte
	err := eachRecord(response, at, func(r record) error {
		if r.section == extraCount && r.kind == dnsmessage.TypeOPT {
			options = response[r.start:r.end]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	short := append(make([]byte, 0, limit), response[:at]...)
	if len(short)+len(options) > limit {
		options = nil // of a size that nobody has use for
	}
	if len(short) > limit {
		return nil, errMalformed
	}
	var kept [headerLength]uint16
	full := false
	_ = eachRecord(response, at, func(r record) error {
		if r.section == extraCount && r.kind == dnsmessage.TypeOPT {
			return nil
		}
		if full = full || len(short)+r.end-r.start+len(options) > limit; full {
			if r.section != extraCount {
				short[2] |= flagTruncated
			}
			return nil
		}
		short = append(short, response[r.start:r.end]...)
		kept[r.section]++
		return nil
	})
	if len(options) > 0 {
		short = append(short, options...)
		kept[extraCount]++
	}
	for _, section := range []int{answerCount, authorityCount, extraCount} {
		binary.BigEndian.PutUint16(short[section:], kept[section])
	}
	return short, nil
}
