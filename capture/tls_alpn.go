package capture

import (
	"slices"
	"strings"

	"meshbridge/translate"
)

// protocol is what a connection to an endpoint carries.
type protocol int

const (
	speaksTCP protocol = iota
	speaksHTTP1
	speaksHTTP2
)

// offered returns the protocols to offer a server. What APISIX speaks is settled when the connection
// is opened, so that the server must not choose another version of HTTP.
func offered(how *translate.UpstreamTLS, speaks protocol) []string {
	switch {
	case speaks == speaksTCP:
		return how.ALPN
	case how.IstioALPN && speaks == speaksHTTP1:
		return []string{"istio-http/1.1", "istio", "http/1.1"}
	case how.IstioALPN:
		return []string{"istio-h2", "istio", "h2"}
	default:
		return slices.DeleteFunc(slices.Clone(how.ALPN), func(name string) bool {
			name = strings.TrimPrefix(name, "istio-")
			if speaks == speaksHTTP1 {
				return name == "h2" || name == "http/1.0"
			}
			return strings.HasPrefix(name, "http/1.")
		})
	}
}
