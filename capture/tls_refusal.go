package capture

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// reason says in one word why a TLS connection does not come about: the label of the metric, and what
// people search logs for.
type reason string

// The reasons. The first are about the peer's certificate.
const (
	reasonNoCertificate    reason = "no_certificate"    // none was shown
	reasonExpired          reason = "expired"           // it, or one of its chain, is no longer valid
	reasonNotYetValid      reason = "not_yet_valid"     // it is not valid yet
	reasonSelfSigned       reason = "self_signed"       // it has signed itself
	reasonUnknownAuthority reason = "unknown_authority" // no authority that we know has issued it
	reasonUsage            reason = "usage"             // it is not for servers, or not for clients
	reasonNotSPIFFE        reason = "not_spiffe"        // it has no SPIFFE ID, or more than one name
	reasonTrustDomain      reason = "trust_domain"      // its SPIFFE ID is of another trust domain
	reasonName             reason = "name"              // none of its names is an expected one
	reasonPin              reason = "pin"               // it is not one of those that are pinned
	reasonRevoked          reason = "revoked"           // its authority has revoked it
	reasonRevocationList   reason = "revocation_list"   // whether it is revoked cannot be told
	reasonCertificate      reason = "certificate"       // it is wrong in another way

	reasonMissingCredential reason = "missing_credential" // we have no certificate or no authorities
	reasonRefusedByPeer     reason = "refused_by_peer"    // the peer has sent an alert
	reasonTimeout           reason = "timeout"            // the handshake took too long
	reasonClosed            reason = "closed"             // the peer went away during the handshake
	reasonProtocol          reason = "protocol"           // no common version or cipher suite, or garbage
)

// refusal is an error with its reason.
type refusal struct {
	reason reason
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(why reason, format string, args ...any) *refusal {
	return &refusal{why, fmt.Errorf(format, args...)}
}

// reasonOf tells why a handshake has failed.
func reasonOf(err error) reason {
	var known *refusal
	var network net.Error
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return reasonTimeout
	case isAlert(err):
		return reasonRefusedByPeer
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		// crypto/tls has no value for it, and answers with the alert that says so.
		return reasonNoCertificate
	case isClosed(err):
		return reasonClosed
	default:
		return reasonProtocol
	}
}

// isAlert tells whether an error is an alert that the peer has sent.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// reasonOfChain tells why a certificate could not be verified.
func reasonOfChain(err error, leaf *x509.Certificate, now time.Time) reason {
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return reasonNotYetValid
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return reasonExpired
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return reasonUsage
	case errors.As(err, &authority) && isSelfSigned(leaf):
		return reasonSelfSigned
	case errors.As(err, &authority):
		return reasonUnknownAuthority
	default:
		return reasonCertificate
	}
}

// isClosed tells whether an error says that the peer has gone.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
