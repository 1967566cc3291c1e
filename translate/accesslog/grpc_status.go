package accesslog

import (
	"strconv"
	"strings"
	"unicode"
)

// grpcNames are the names of gRPC's status codes, in their order.
func grpcNames() []string {
	return []string{
		"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
		"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
		"Internal", "Unavailable", "DataLoss", "Unauthenticated",
	}
}

// grpcStatus is the operator for the status of a gRPC request, in a form.
func grpcStatus(form string) (op operator, ok bool) {
	switch form {
	case "", "CAMEL_STRING", "SNAKE_STRING", "NUMBER":
	default:
		return operator{}, false
	}
	return operator{number: form == "NUMBER", append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
		text := e.http().GRPCStatus
		code, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return dst, false
		}
		switch names := grpcNames(); {
		case form == "NUMBER", code >= uint64(len(names)):
		case form == "SNAKE_STRING":
			text = snake(names[code])
		default:
			text = names[code]
		}
		return append(dst, text...), true
	}}, true
}

// snake is the name of a code as it is in protocol buffers.
func snake(name string) string {
	switch name {
	case "OK":
		return name
	case "Canceled":
		return "CANCELLED"
	}
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// grpcCode is the status of a request by gRPC's numbers; where it has none, what the HTTP status stands for.
func (e *Entry) grpcCode() int64 {
	if code, err := strconv.ParseInt(e.http().GRPCStatus, 10, 32); err == nil {
		return code
	}
	switch e.http().Status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}
