package capture

import (
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// maxClientHello bounds what is read of a ClientHello, records included: crypto/tls's own limit for
// handshake messages.
const maxClientHello = 64 << 10

// maxClientHelloRecords bounds into how many records a ClientHello may be cut. Real ones need few; looking
// at each of many again for every byte would be work that a client gets for nothing.
const maxClientHelloRecords = 1024

// TLS's numbers, of RFC 8446 and RFC 6066.
const (
	recordHandshake      = 22
	recordHeaderLength   = 5
	maxRecordLength      = 1<<14 + 256
	messageClientHello   = 1
	messageHeaderLength  = 4
	extensionServerName  = 0
	extensionALPN        = 16
	serverNameTypeDNS    = 0
	tlsMajorVersion      = 3
	clientHelloRandomLen = 32
)

// readClientHello looks whether a connection begins with a TLS ClientHello, and fills in what it says.
// A ClientHello may be cut into several records. What is no ClientHello, or a damaged one, is no TLS, as
// for Envoy's tls_inspector.
func readClientHello(b []byte, into *inspected) verdict {
	message, v := clientHelloMessage(b)
	if v != yes {
		return v
	}
	serverName, protocols, ok := parseClientHello(message)
	if !ok {
		return no
	}
	into.transport = transportTLS
	into.serverName = strings.ToLower(serverName)
	into.protocols = protocols
	return yes
}

// clientHelloMessage returns the body of the ClientHello at the begin of b, put together from its records.
func clientHelloMessage(b []byte) ([]byte, verdict) {
	var message []byte // of the records so far
	records := b
	for range maxClientHelloRecords {
		if v := recordHeader(records, len(message) == 0); v != yes {
			return nil, v
		}
		length := int(records[3])<<8 | int(records[4])
		body := records[recordHeaderLength:]
		whole := len(body) >= length
		if whole {
			body = body[:length]
		}
		if message == nil {
			message = slices.Clip(body) // copied when a second record is appended
		} else {
			message = append(message, body...)
		}
		if len(message) > 0 && message[0] != messageClientHello {
			return nil, no
		}
		if len(message) >= messageHeaderLength {
			end := messageHeaderLength + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
			if end > maxClientHello {
				return nil, no
			}
			if len(message) >= end {
				return message[messageHeaderLength:end], yes
			}
		}
		if !whole {
			return nil, undecided
		}
		records = records[recordHeaderLength+length:]
	}
	return nil, no
}

// recordHeader tells whether b begins with the header of a handshake record. The first bytes decide as
// soon as they are there: whoever speaks another protocol may wait for an answer to few.
func recordHeader(b []byte, first bool) verdict {
	if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != tlsMajorVersion {
		return no
	}
	if len(b) < recordHeaderLength {
		return undecided
	}
	length := int(b[3])<<8 | int(b[4])
	if length == 0 || length > maxRecordLength {
		return no
	}
	if first && len(b) > recordHeaderLength && b[recordHeaderLength] != messageClientHello {
		return no
	}
	return yes
}

// parseClientHello returns the server name and the application protocols of a ClientHello's body.
func parseClientHello(message []byte) (serverName string, protocols []string, ok bool) {
	s := cryptobyte.String(message)
	var session, suites, compressions, extensions cryptobyte.String
	if !s.Skip(2+clientHelloRandomLen) ||
		!s.ReadUint8LengthPrefixed(&session) || !s.ReadUint16LengthPrefixed(&suites) ||
		!s.ReadUint8LengthPrefixed(&compressions) {
		return "", nil, false
	}
	if s.Empty() {
		return "", nil, true // before TLS had extensions
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return "", nil, false
	}
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return "", nil, false
		}
		switch kind {
		case extensionServerName:
			if serverName, ok = parseServerName(data); !ok {
				return "", nil, false
			}
		case extensionALPN:
			if protocols, ok = parseALPN(data); !ok {
				return "", nil, false
			}
		default:
			// Others, and those of GREASE, say nothing that is asked for.
		}
	}
	return serverName, protocols, true
}

func parseServerName(data cryptobyte.String) (string, bool) {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return "", false
	}
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) {
			return "", false
		}
		if kind == serverNameTypeDNS {
			return string(name), len(name) > 0
		}
	}
	return "", true
}

func parseALPN(data cryptobyte.String) ([]string, bool) {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return nil, false
	}
	var protocols []string
	for !list.Empty() {
		var protocol cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&protocol) || protocol.Empty() {
			return nil, false
		}
		protocols = append(protocols, string(protocol))
	}
	return protocols, true
}
