// Package difftest compares what Envoy does with a request with what APISIX does with it.
//
//	                ┌─▶ envoytest.Evaluator ─────────────────────▶ Decision ─┐
//	Snapshot ───────┤                                                        ├─▶ Differences ─▶ explained by
//	                └─▶ translate ─▶ apisix.Evaluator ───────────▶ Decision ─┘   a diagnostic, or a failure
//
// Requests are random, and made of what the configuration mentions: every host, path, header and
// parameter that could decide about a route, and what is nearly one of them. A difference is a
// failure unless the translation has reported it: for each diagnostic code there is a rule that says
// which differences the code explains, for the route or chain that the diagnostic is about.
//
// It is support for tests of this and of other modules.
package difftest
