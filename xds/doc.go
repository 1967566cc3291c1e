// Package xds receives Envoy v3 configuration, from istiod over ADS or from files, and turns it into
// immutable snapshots with exact change sets.
//
//	bytes ──▶ decode, validate ──▶ compare with what is known ──▶ Update{Snapshot, Changed}
//
// Guarantees, for both sources:
//   - A resource that does not decode or validate is rejected alone; its siblings are applied and
//     its last good version stays.
//   - Resources are compared by their bytes, because istiod sends everything again on any change
//     and leaves resource versions empty. A push that changes nothing gives no Update.
//   - Losing the connection, a clean end of the stream, or a restarted istiod changes nothing until
//     the new stream has said what differs.
//
// The package knows gRPC, tokens and Istio's node metadata. It knows nothing of APISIX.
package xds
