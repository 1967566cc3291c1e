// Package accesslog writes entries of access logs: to files, to services that speak Envoy's access log service,
// and to collectors of OpenTelemetry. What a log wants, and how an entry reads, is for meshbridge/translate/accesslog.
//
// Each destination has a queue and a goroutine of its own, so that [Writer.Write] never waits and one destination
// is not felt by another. A queue is bounded; what does not fit is lost, counted and said.
package accesslog
