// Package translate turns xDS resources into APISIX objects and diagnostics.
//
//	xds.Snapshot + changed keys + Inputs ──▶ State.Apply ──▶ Result{Put, Delete, Diagnostics}
//
// It is pure: no I/O, clock, randomness, log or goroutine. Equal inputs give equal bytes, and
// applying changes one by one gives the same objects as translating the final snapshot at once.
//
// Listeners become the chain table: for each filter chain what it receives, whether the Profile can
// tell its connections from others (the guard, with which every route begins), and whether its
// requests must be refused. Each chain's route configuration becomes routes: virtual hosts to hosts,
// matches to paths and conditions, actions to branches; hoisting and priorities keep Envoy's order.
// Routes refer to clusters in variants, each of which becomes an upstream. Where APISIX terminates a
// chain's TLS, the secrets that the chain names become an ssl.
//
// Nothing is dropped in silence: every field that APISIX cannot express becomes a Diagnostic that
// says what happens instead. One route that cannot be expressed never hurts its neighbours, and
// whatever restricts access and cannot be enforced makes its chain answer 403.
package translate
