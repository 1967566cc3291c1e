// Package istiod runs a real istiod from a directory of Istio and Kubernetes
// YAML, without a cluster, and follows edits of that directory.
//
// Two ways of running it are offered, because neither does everything:
//
//   - ModeDiscovery is istiod's discovery server with its Kubernetes registry
//     and Gateway API controller over a fake API client, served in plaintext.
//     It starts in a fraction of a second. It has no certificate authority.
//   - ModeBootstrap is the whole istiod start-up (pilot's bootstrap.Server)
//     over a fake API client: certificate authority, a TLS port with token
//     authentication, SDS. It does not convert Kubernetes Gateway API.
//
// There are no Kubernetes controllers: a Deployment creates no Pods and a
// Service no endpoints. Write the EndpointSlices, and the Pods where labels,
// service accounts or the sidecar mark (security.istio.io/tlsMode) matter.
package istiod
