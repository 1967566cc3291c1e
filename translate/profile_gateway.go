package translate

import (
	"strconv"
	"strings"

	"meshbridge/translate/apisix"
)

const varServerName = "ssl_server_name"

type gatewayProfile struct{}

// Gateway is the profile of an ingress or egress gateway whose ports APISIX listens on itself, with
// TLS terminated by APISIX on the ports of TLS chains.
func Gateway() Profile { return gatewayProfile{} }

func (gatewayProfile) Name() string { return "gateway" }

func (gatewayProfile) Guard(c *Chain) (guard apisix.Vars, ok bool, why string) {
	switch {
	case !c.Bound:
		return nil, false, "APISIX receives no redirected connections"
	case c.narrowed != "":
		return nil, false, "connections cannot be told apart by " + c.narrowed
	}
	guard = apisix.List(apisix.Eq("server_port", strconv.Itoa(c.Port)))
	if !c.TLS {
		return guard, true, ""
	}
	if len(c.ServerNames) > 0 {
		guard = append(guard, matchServerNames(c.ServerNames, apisix.MatchFold))
	}
	// Envoy prefers an exact name to a wildcard, and a longer wildcard to a shorter one.
	if len(c.ExcludedServerNames) > 0 {
		guard = append(guard, matchServerNames(c.ExcludedServerNames, apisix.NotMatchFold))
	}
	return guard, true, ""
}

// matchServerNames matches any of the names. Server names are compared without regard to case, and
// a wildcard covers any number of labels.
func matchServerNames(names []string, match func(variable, pcre string) apisix.Cond) apisix.Cond {
	patterns := make([]string, len(names))
	for i, name := range names {
		if suffix, wildcard := strings.CutPrefix(name, "*"); wildcard {
			patterns[i] = ".+" + apisix.QuoteRegex(suffix)
		} else {
			patterns[i] = apisix.QuoteRegex(name)
		}
	}
	return match(varServerName, `\A(?:`+strings.Join(patterns, "|")+`)\z`)
}

func (gatewayProfile) Vars(c *Chain, conn Connection) map[string]string {
	vars := map[string]string{"server_port": strconv.Itoa(c.Port)}
	if conn.Address.IsValid() {
		vars["server_addr"] = conn.Address.String()
	}
	if c.TLS {
		name := conn.ServerName
		if name == "" && len(c.ServerNames) > 0 {
			name = strings.Replace(c.ServerNames[0], "*", "any", 1)
		}
		if name != "" {
			vars[varServerName] = name
		}
	}
	return vars
}

func (gatewayProfile) PeerAddress() string { return "realip_remote_addr" }

func (gatewayProfile) OriginalDestination() (addr, port string) { return "server_addr", "server_port" }

func (gatewayProfile) SNI() string          { return varServerName }
func (gatewayProfile) PeerIdentity() string { return "" }
func (gatewayProfile) Overlay() bool        { return false }
func (gatewayProfile) SourceBind() bool     { return false }
func (gatewayProfile) TerminatesTLS() bool  { return true }
func (gatewayProfile) Captures() bool       { return false }
