// Package conformance tests meshbridge against a real istiod: both run as
// processes, the mesh is a directory of YAML that the tests edit, and what
// counts is what a user of either side would see.
//
//	go test ./...            builds both programs and runs everything
//	go run ./cmd/istiod --dir demo
//
// Package tables gives what Istio's own tests are made of, its routing tables
// and its fixtures of the Gateway API, to the model of Envoy and to the
// translation. Package istioctl has the real istioctl ask a running bridge.
//
// It is a Go module of its own because istiod brings more than a thousand
// packages that the bridge must not depend on. The first build takes several
// minutes.
package conformance
