// Package bridge wires the parts into the running bridge: an xds.Source feeds the pipeline, which
// owns the translation and commits its results to the store that the gateway serves.
//
//	source ──▶ mailbox ──▶ pipeline ──▶ store ──▶ gateway
//	            (merges)   (translate,  (one txn
//	                        phases)     a phase)
//
// One goroutine owns the pipeline. Everything that other goroutines want to know of it is published
// as an immutable View.
package bridge
