// Package envoytest is a reference of what Envoy does with a request: an evaluator of raw xDS
// resources that knows nothing of APISIX or of the translation, so that both can be compared with it.
//
//	Snapshot + Request ──▶ Evaluator.Evaluate ──▶ Decision
//
// It follows Envoy's own code rather than its documentation where the two differ in precision:
// listener and filter chain selection, the connection manager's normalisation of requests, virtual
// host and route selection, the HTTP filters that istiod configures, and what the router makes of
// the request. Chance is an input ([Draws]), so that a decision is a function of the request.
//
// It is support for tests and favours being readable over being fast. What it does not model is
// named in [Decision.Notes], and gives [Unknown] where it could change the outcome: services that
// are asked about a request, matcher trees, and filters that are not built into Envoy.
package envoytest
