// Package authn verifies the JWTs of requests for APISIX, which cannot: a route asks with its plugin
// forward-auth, and the answer is what Envoy's filter jwt_authn would do with the request.
//
//	client ──▶ APISIX ──forward-auth──▶ Handler ──▶ filter: which tokens, from where, of whom
//	             ▲                         │
//	             └── 200, headers for the upstream and for later rules, or 401 and 403 for the client
//
// It follows Envoy's code where that is more precise than its documentation: the order in which
// tokens are looked at, which of several failures counts, and the texts of answers.
package authn
