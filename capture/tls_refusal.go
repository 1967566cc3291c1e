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

// tlsReason says in one word why a TLS connection does not come about: the label of the metric, and what
// people search logs for.
type tlsReason string

// The reasons. The first are about the peer's certificate.
const (
	tlsNoCertificate    tlsReason = "no_certificate"    // none was shown
	tlsExpired          tlsReason = "expired"           // it, or one of its chain, is no longer valid
	tlsNotYetValid      tlsReason = "not_yet_valid"     // it is not valid yet
	tlsSelfSigned       tlsReason = "self_signed"       // it has signed itself
	tlsUnknownAuthority tlsReason = "unknown_authority" // no authority that we know has issued it
	tlsUsage            tlsReason = "usage"             // it is not for servers, or not for clients
	tlsNotSPIFFE        tlsReason = "not_spiffe"        // it has no SPIFFE ID, or more than one name
	tlsTrustDomain      tlsReason = "trust_domain"      // its SPIFFE ID is of another trust domain
	tlsName             tlsReason = "name"              // none of its names is an expected one
	tlsPin              tlsReason = "pin"               // it is not one of those that are pinned
	tlsRevoked          tlsReason = "revoked"           // its authority has revoked it
	tlsRevocationList   tlsReason = "revocation_list"   // whether it is revoked cannot be told
	tlsCertificate      tlsReason = "certificate"       // it is wrong in another way

	tlsMissingCredential tlsReason = "missing_credential" // we have no certificate or no authorities
	tlsRefusedByPeer     tlsReason = "refused_by_peer"    // the peer has sent an alert
	tlsTimeout           tlsReason = "timeout"            // the handshake took too long
	tlsClosed            tlsReason = "closed"             // the peer went away during the handshake
	tlsProtocol          tlsReason = "protocol"           // no common version or cipher suite, or garbage
)

// ErrMissingCredential is what errors of a Dialer are where there is no certificate to show, or no authorities to
// verify the peer's with.
var ErrMissingCredential = errors.New("there is no certificate, or no authorities")

// refusal is an error with its reason.
type refusal struct {
	reason tlsReason
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) Is(target error) bool {
	return target == ErrMissingCredential && r.reason == tlsMissingCredential
}

func refuse(why tlsReason, format string, args ...any) *refusal {
	return &refusal{why, fmt.Errorf(format, args...)}
}

// reasonOf tells why a handshake has failed.
func reasonOf(err error) tlsReason {
	var known *refusal
	var network net.Error
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return tlsTimeout
	case isAlert(err):
		return tlsRefusedByPeer
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		// crypto/tls has no value for it, and answers with the alert that says so.
		return tlsNoCertificate
	case isClosed(err):
		return tlsClosed
	default:
		return tlsProtocol
	}
}

// isAlert tells whether an error is an alert that the peer has sent.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// reasonOfChain tells why a certificate could not be verified.
func reasonOfChain(err error, leaf *x509.Certificate, now time.Time) tlsReason {
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return tlsNotYetValid
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return tlsExpired
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return tlsUsage
	case errors.As(err, &authority) && isSelfSigned(leaf):
		return tlsSelfSigned
	case errors.As(err, &authority):
		return tlsUnknownAuthority
	default:
		return tlsCertificate
	}
}

// isClosed tells whether an error says that the peer has gone.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
