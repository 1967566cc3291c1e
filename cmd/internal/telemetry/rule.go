package telemetry

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"meshbridge/translate/apisix"
)

// RuleID is the id of the global rule with the program.
const RuleID = "g.requests"

const (
	// reportInterval is the time between two reports of a process, in seconds.
	reportInterval = 1
	// maxProcessSeries bounds what a process of APISIX keeps for names that its clients make up.
	maxProcessSeries = 2048
)

// Rule says what APISIX is to run.
type Rule struct {
	// Address is where the bridge takes reports.
	Address netip.AddrPort
	// Mesh tells that capture says in the PROXY protocol header who the client is.
	Mesh bool
	// Gateway tells that clients are outside the mesh: the Host headers that they send name nothing.
	Gateway bool
}

// chainPrefix comes before the key of a chain where a request found no route.
const chainPrefix = "chain/"

//go:embed program.lua
var program string

// Object returns the global rule. It is one object however many routes there are; a plugin of routes would be
// compiled for each of them, and again whenever APISIX's cache of eight is exceeded.
func (r Rule) Object() (apisix.Object, error) {
	principal, chain, hosts := "nil", "nil", "true"
	if r.Mesh {
		principal = "var.proxy_protocol_tlv_0xe1"
		// The parts of an id are never parted by a slash.
		chain = `var.proxy_protocol_tlv_0xe0 and "` + chainPrefix + `" .. var.proxy_protocol_tlv_0xe0`
	}
	if r.Gateway {
		hosts = "false"
	}
	text := strings.NewReplacer(
		"@URL@", fmt.Sprintf("http://%s%s", r.Address, Path),
		"@BOUNDS@", luaBounds(),
		"@INTERVAL@", strconv.Itoa(reportInterval),
		"@SERIES@", strconv.Itoa(maxProcessSeries),
		"@PRINCIPAL@", principal,
		"@CHAIN@", "("+chain+")",
		"@HOSTS@", hosts,
		"@INBOUND@", `route and sub(route.name or "", 1, 2) == "i:"`,
	).Replace(program)
	return apisix.Marshal(apisix.KindGlobalRule, RuleID, map[string]any{
		"id": RuleID,
		"plugins": apisix.Plugins{
			"serverless-post-function": map[string]any{"phase": "log", "functions": []string{text}},
		},
	})
}

func luaBounds() string {
	var text []string
	for _, b := range bounds() {
		text = append(text, strconv.FormatFloat(b, 'f', -1, 64))
	}
	return strings.Join(text, ", ")
}
