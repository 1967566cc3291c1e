package identity

import (
	"errors"
	"io/fs"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reasons of failures, as the metric has them.
const (
	reasonFile        = "file"
	reasonUnreachable = "unreachable"
	reasonRefused     = "refused"
	reasonInvalid     = "invalid"
)

// errNone is what a handshake fails with that needs a certificate before there is one.
var errNone = errors.New("there is no workload certificate yet")

// fileError is a local file that cannot be used.
type fileError struct{ err error }

func (e fileError) Error() string { return e.err.Error() }
func (e fileError) Unwrap() error { return e.err }

// invalidError is something received that must not become current.
type invalidError struct{ err error }

func (e invalidError) Error() string { return e.err.Error() }
func (e invalidError) Unwrap() error { return e.err }

func reason(err error) string {
	if _, ok := errors.AsType[fileError](err); ok || errors.Is(err, fs.ErrNotExist) {
		return reasonFile
	}
	if _, ok := errors.AsType[invalidError](err); ok {
		return reasonInvalid
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return reasonRefused
	default:
		return reasonUnreachable
	}
}
