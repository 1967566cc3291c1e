// Package apisix holds the APISIX objects that meshbridge emits, APISIX's rules about them, and an
// evaluator of APISIX's routing: given a request, which route and upstream would APISIX choose, and
// why not the others.
//
// The package is pure: no I/O, clock, log or goroutine.
package apisix
