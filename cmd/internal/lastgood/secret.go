package lastgood

import (
	"bytes"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/xds"
)

// resourcesOf lists what is kept of a snapshot, in a fixed order, and counts what is left out because it
// has, or may have, a private key.
func resourcesOf(s *xds.Snapshot, keys bool) (kept []*xds.Resource, leftOut int) {
	for _, typeURL := range sortedTypes(s) {
		for r := range s.All(typeURL) {
			if !keys && confidential(r) {
				leftOut++
				continue
			}
			kept = append(kept, r)
		}
	}
	return kept, leftOut
}

// confidential tells of secrets whether they are more than authorities, and of others whether there is
// a private key in them: an EnvoyFilter may have put one there.
func confidential(r *xds.Resource) bool {
	if r.Type == xds.SecretType {
		secret, err := xds.Decode[*tlspb.Secret](r)
		return err != nil || secret.GetValidationContext() == nil
	}
	return bytes.Contains(r.Body.GetValue(), []byte("PRIVATE KEY-----"))
}
