// Package accesslog is about Envoy's access logs, as far as the bridge writes them instead of APISIX: those to
// services (gRPC, OpenTelemetry), those of connections that carry no HTTP, and of files what APISIX's own plugin
// is not left to write.
//
// [Parse] reads the configuration of one. An [Entry] is what is known of a request or a connection when it is
// over, whoever has observed it; a [Log] says whether it wants an entry, and how that reads. Nothing here
// writes anything: that is for the process that serves.
package accesslog
