package translate

import (
	"strconv"

	"meshbridge/translate/apisix"
)

// Variables with what capture says about a connection in the PROXY protocol header: the addresses,
// and values of the custom range of types.
const (
	varChain        = ChainVariable
	varPeerIdentity = "proxy_protocol_tlv_0xe1"
	varCapturedSNI  = "proxy_protocol_tlv_0xe3"
)

// ChainVariable is what a route of profile mesh is guarded by: the chain of the connection.
const ChainVariable = "proxy_protocol_tlv_0xe0"

type meshProfile struct{}

// Mesh is the profile with capture in front of APISIX: capture does what Envoy's listener does,
// terminates mesh TLS, and names the chain in the PROXY protocol header of every connection. Its
// variables need APISIX 3.9 or later: below, no chain is served.
func Mesh() Profile { return meshProfile{} }

func (meshProfile) Name() string { return "mesh" }

func (meshProfile) Guard(c *Chain) (guard apisix.Vars, ok bool, why string) {
	return apisix.List(apisix.Eq(varChain, c.Key)), true, ""
}

func (meshProfile) Vars(c *Chain, conn Connection) map[string]string {
	vars := map[string]string{varChain: c.Key}
	if conn.Address.IsValid() {
		vars["proxy_protocol_server_addr"] = conn.Address.String()
		vars["proxy_protocol_server_port"] = strconv.Itoa(conn.Port)
	}
	if conn.ServerName != "" {
		vars[varCapturedSNI] = conn.ServerName
	}
	return vars
}

func (meshProfile) PeerAddress() string { return "proxy_protocol_addr" }

func (meshProfile) OriginalDestination() (addr, port string) {
	return "proxy_protocol_server_addr", "proxy_protocol_server_port"
}

func (meshProfile) SNI() string          { return varCapturedSNI }
func (meshProfile) PeerIdentity() string { return varPeerIdentity }
func (meshProfile) Overlay() bool        { return true }
func (meshProfile) SourceBind() bool     { return true }
func (meshProfile) TerminatesTLS() bool  { return true }
func (meshProfile) Captures() bool       { return true }
