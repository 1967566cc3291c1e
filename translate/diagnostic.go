package translate

import (
	"cmp"
	"strings"
)

// Severity says how much a diagnostic matters.
type Severity string

// Severities, from the worst.
const (
	// SeverityError: traffic is refused, or answered differently from Envoy in a way a user will notice.
	SeverityError Severity = "error"
	// SeverityWarning: the translation is approximate or a setting has no effect.
	SeverityWarning Severity = "warning"
	// SeverityInfo: worth knowing, with no effect on traffic.
	SeverityInfo Severity = "info"
)

// Code identifies a kind of diagnostic. Codes are stable: scripts and --allow-unenforced use them.
type Code string

// Diagnostic is one thing that APISIX cannot express exactly, and what happens instead.
type Diagnostic struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	// Resource is the xDS resource, for example `RouteConfiguration 9080`.
	Resource string `json:"resource"`
	// Field is the path of the field within the resource, in proto field names, for example
	// `virtual_hosts["reviews:9080"].routes["canary"].route.max_stream_duration`.
	Field string `json:"field,omitempty"`
	// Message says what APISIX does instead, in one sentence.
	Message string `json:"message"`
	// Origin is the Istio object that the field came from, where istiod says so, for example
	// `VirtualService default/reviews`.
	Origin string `json:"origin,omitempty"`
}

// String formats the diagnostic on one line.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(string(d.Severity))
	b.WriteString(": ")
	b.WriteString(d.Resource)
	if d.Field != "" {
		b.WriteString(": ")
		b.WriteString(d.Field)
	}
	b.WriteString(": ")
	b.WriteString(d.Message)
	if d.Origin != "" {
		b.WriteString(" (from ")
		b.WriteString(d.Origin)
		b.WriteByte(')')
	}
	b.WriteString(" [")
	b.WriteString(string(d.Code))
	b.WriteByte(']')
	return b.String()
}

// CompareDiagnostics orders by resource, field, code and message.
func CompareDiagnostics(a, b Diagnostic) int {
	return cmp.Or(
		strings.Compare(a.Resource, b.Resource),
		strings.Compare(a.Field, b.Field),
		strings.Compare(string(a.Code), string(b.Code)),
		strings.Compare(a.Message, b.Message),
	)
}
