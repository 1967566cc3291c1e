package identity

import (
	"context"
	"time"
)

// SetRequest replaces the call of istiod's certificate authority.
func SetRequest(source Source, request func(ctx context.Context, csr []byte) (chain []string, err error)) {
	source.(*istiod).request = request
}

// RenewalTime is when a certificate is renewed.
func RenewalTime(now, notAfter time.Time) time.Time { return renewalTime(now, notAfter) }
