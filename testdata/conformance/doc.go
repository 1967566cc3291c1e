// Package conformance tests meshbridge against a real istiod: both run as
// processes, the mesh is a directory of YAML that the tests edit, and what
// counts is what a user of either side would see.
//
//	go test ./...            builds both programs and runs everything
//	go run ./cmd/istiod --dir demo
//
// It is a Go module of its own because istiod brings more than a thousand
// packages that the bridge must not depend on. The first build takes several
// minutes.
package conformance
