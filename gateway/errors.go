package gateway

import (
	"context"
	"errors"
	"net/http"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/gateway/auth"
	"meshbridge/store"
)

// wireError gives the error that etcd puts on the wire for an error of the store or of auth. Clients map
// errors by their exact text, so the texts are API. A gRPC status passes through; an error that is not in
// the table becomes Unknown, as in etcd.
func wireError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, e := range [...]struct{ domain, wire error }{
		{store.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
		{store.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
		{store.ErrValueProvided, rpctypes.ErrGRPCValueProvided},
		{store.ErrLeaseProvided, rpctypes.ErrGRPCLeaseProvided},
		{store.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps},
		{store.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
		{store.ErrInvalidSort, rpctypes.ErrGRPCInvalidSortOption},
		{store.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
		{store.ErrCompacted, rpctypes.ErrGRPCCompacted},
		{store.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
		{store.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
		{store.ErrLeaseTTL, rpctypes.ErrGRPCLeaseTTLTooLarge},
		{store.ErrClosed, rpctypes.ErrGRPCStopped},
		{auth.ErrRootUserNotExist, rpctypes.ErrGRPCRootUserNotExist},
		{auth.ErrRootRoleNotExist, rpctypes.ErrGRPCRootRoleNotExist},
		{auth.ErrUserExists, rpctypes.ErrGRPCUserAlreadyExist},
		{auth.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty},
		{auth.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound},
		{auth.ErrRoleExists, rpctypes.ErrGRPCRoleAlreadyExist},
		{auth.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound},
		{auth.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty},
		{auth.ErrPermissionNotGiven, rpctypes.ErrGRPCPermissionNotGiven},
		{auth.ErrFailed, rpctypes.ErrGRPCAuthFailed},
		{auth.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied},
		{auth.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted},
		{auth.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted},
		{auth.ErrNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
		{auth.ErrOldRevision, rpctypes.ErrGRPCAuthOldRevision},
		{auth.ErrInvalidToken, rpctypes.ErrGRPCInvalidAuthToken},
		{auth.ErrInvalidManagement, rpctypes.ErrGRPCInvalidAuthMgmt},
		{auth.ErrBusy, rpctypes.ErrGRPCRequestTooManyRequests},
		{context.Canceled, status.Error(codes.Canceled, context.Canceled.Error())},
		{context.DeadlineExceeded, status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())},
	} {
		if errors.Is(err, e.domain) {
			return e.wire
		}
	}
	return status.Error(codes.Unknown, err.Error())
}

// Reasons in watch responses that cancel a watch as it is created.
const (
	reasonDuplicateWatchID = "mvcc: duplicate watch ID provided on the WatchStream"
	reasonEmptyWatchRange  = "mvcc: watcher range is empty"
	reasonTooManyWatches   = "etcdserver: too many watches"
)

// reasonCompacted is the reason for a negative start revision.
func reasonCompacted() string { return rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted) }

// reasonNotPermitted is the reason for a wire error of authorisation: the text of the whole error.
func reasonNotPermitted(err error) string { return err.Error() }

// errHeld is what a request gets that was held for longer than Config.HoldTimeout.
func errHeld() error {
	return status.Error(codes.Unavailable, "etcdserver: not serving this range yet")
}

// statusClientClosed is the status that proxies log for a request whose client went away.
const statusClientClosed = 499

// httpStatus is the HTTP status of a gRPC code in etcd's JSON gateway.
func httpStatus(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return statusClientClosed
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
