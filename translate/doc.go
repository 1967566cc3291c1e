// Package translate turns xDS resources into APISIX objects and diagnostics.
//
//	xds.Snapshot + changed keys + Inputs ──▶ State.Apply ──▶ Result{Put, Delete, Diagnostics}
//
// It is pure: no I/O, clock, randomness, log or goroutine. Equal inputs give equal bytes, and
// applying changes one by one gives the same objects as translating the final snapshot at once.
//
// Nothing is dropped in silence: every field that APISIX cannot express becomes a Diagnostic that
// says what happens instead. One route that cannot be expressed never hurts its neighbours, and
// whatever restricts access and cannot be enforced makes its chain answer 403.
package translate
