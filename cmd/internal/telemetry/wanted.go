package telemetry

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/accesslog"
	"meshbridge/translate/apisix"
)

// LoggedChain is a chain with access logs, and the headers that these want, in lower case and sorted.
type LoggedChain struct {
	Key                             string
	RequestHeaders, ResponseHeaders []string
}

// Logged returns what the logs of a chain want of each request.
func Logged(key string, logs []*accesslog.Log) LoggedChain {
	c := LoggedChain{Key: key}
	for _, l := range logs {
		c.RequestHeaders = append(c.RequestHeaders, l.RequestHeaders...)
		c.ResponseHeaders = append(c.ResponseHeaders, l.ResponseHeaders...)
	}
	for _, names := range []*[]string{&c.RequestHeaders, &c.ResponseHeaders} {
		*names = slices.DeleteFunc(*names, func(name string) bool { return !isHeader(name) })
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	return c
}

// isHeader tells names of headers from what an entry has of its own (":path"), and from what is none.
func isHeader(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// originalDestination is where a redirected connection went, "address:port". Only APISIX's own builds of nginx
// have it, and only for IPv4.
const originalDestination = "connection_original_dst"

// variables of nginx make an entry, in the order of the columns; empty ones are not known.
func variables(p translate.Profile) [columns - columnRequest]string {
	var v [columns - columnRequest]string
	set := func(at column, variable string) { v[at-columnRequest] = variable }
	address, port := p.OriginalDestination()
	if address == "" {
		address = originalDestination
	}
	set(columnRequest, "request")
	set(columnAuthority, "http_host")
	set(columnScheme, "scheme")
	set(columnDestination, address)
	set(columnDestinationPort, port)
	set(columnServerName, p.SNI())
	set(columnReceived, "request_length")
	set(columnReceivedBody, "content_length")
	set(columnSent, "bytes_sent")
	set(columnSentBody, "body_bytes_sent")
	set(columnConnected, "upstream_connect_time")
	set(columnAnswered, "upstream_header_time")
	set(columnEnded, "upstream_response_time")
	set(columnUpstreamReceived, "upstream_bytes_received")
	set(columnUpstreamSent, "upstream_bytes_sent")
	set(columnConnection, "connection")
	// Whoever is in front and tells of the client in a PROXY protocol header is believed: nginx has asked for it.
	set(columnTold, "proxy_protocol_addr")
	set(columnToldPort, "proxy_protocol_port")
	if p.Captures() {
		return v
	}
	set(columnClient, "remote_addr")
	set(columnClientPort, "remote_port")
	set(columnPeer, "realip_remote_addr")
	set(columnPeerPort, "realip_remote_port")
	set(columnServer, "server_addr")
	set(columnServerPort, "server_port")
	return v
}

// responseMark comes before the names of headers of responses.
const responseMark = ">"

// wanted returns the program's tables: what is wanted, once however many chains want it, and by whom.
func (r Rule) wanted() (wanted, logged string) {
	var lists, chains strings.Builder
	known := map[string]int{}
	common := variables(r.Profile)
	for _, c := range r.Logged {
		var headers, vars []string
		for _, name := range common {
			vars = append(vars, luaVariable(name))
		}
		for _, name := range c.RequestHeaders {
			headers, vars = append(headers, apisix.LuaQuote(name)), append(vars, luaVariable("http_"+variableOf(name)))
		}
		for _, name := range c.ResponseHeaders {
			headers, vars = append(headers, apisix.LuaQuote(responseMark+name)), append(vars, luaVariable("sent_http_"+variableOf(name)))
		}
		names := strings.Join(headers, ", ")
		at := known[names]
		if at == 0 {
			at = len(known) + 1
			known[names] = at
			sum := sha256.Sum256([]byte(names))
			fmt.Fprintf(&lists, "\n  {id = %q, row = {}, vars = {%s}", hex.EncodeToString(sum[:6]), strings.Join(vars, ", "))
			if names != "" { // an empty table would be an object in JSON
				fmt.Fprintf(&lists, ", headers = {%s}", names)
			}
			lists.WriteString("},")
		}
		fmt.Fprintf(&chains, "\n  [%s] = wanted[%d],", apisix.LuaQuote(c.Key), at)
	}
	return lists.String(), chains.String()
}

func luaVariable(name string) string {
	if name == "" {
		return "false"
	}
	return apisix.LuaQuote(name)
}

// variableOf is how nginx calls a header.
func variableOf(header string) string { return strings.ReplaceAll(header, "-", "_") }
