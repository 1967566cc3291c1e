package telemetry

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// RuleID is the id of the global rule with the program.
const RuleID = "g.requests"

const (
	// reportInterval is the time between two reports of a process, in seconds.
	reportInterval = 1
	// maxProcessSeries bounds what a process of APISIX keeps for names that its clients make up.
	maxProcessSeries = 2048
	// manyEntries and manyBytes are how many entries are reported at once, instead of at the next interval.
	manyEntries = 2_000
	manyBytes   = 1 << 20
)

// Rule says what APISIX is to run.
type Rule struct {
	// Address is where the bridge takes reports.
	Address netip.AddrPort
	// Profile says which variables tell of a connection.
	Profile translate.Profile
	// Gateway tells that clients are outside the mesh: the Host headers that they send name nothing.
	Gateway bool
	// Logged are the chains whose requests are wanted one by one, sorted by key.
	Logged []LoggedChain
}

// chainPrefix comes before the key of a chain where a request found no route.
const chainPrefix = "chain/"

//go:embed program.lua
var program string

// Object returns the global rule. It is one object however many routes there are; a plugin of routes would be
// compiled for each of them, and again whenever APISIX's cache of eight is exceeded.
func (r Rule) Object() (apisix.Object, error) {
	principal, key, chain, hosts := "nil", "nil", "nil", "true"
	if identity := r.Profile.PeerIdentity(); identity != "" {
		principal, key = "var."+identity, "var."+translate.ChainVariable
		// The parts of an id are never parted by a slash.
		chain = key + ` and "` + chainPrefix + `" .. ` + key
	}
	if r.Gateway {
		hosts = "false"
	}
	wanted, logged := r.wanted()
	text := strings.NewReplacer(
		"@URL@", fmt.Sprintf("http://%s%s", r.Address, Path),
		"@BOUNDS@", luaBounds(),
		"@INTERVAL@", strconv.Itoa(reportInterval),
		"@SERIES@", strconv.Itoa(maxProcessSeries),
		"@ENTRIES@", strconv.Itoa(maxEntries),
		"@BYTES@", strconv.Itoa(maxEntryBytes),
		"@MANY@", strconv.Itoa(manyEntries),
		"@MANYBYTES@", strconv.Itoa(manyBytes),
		"@TEXT@", strconv.Itoa(maxEntryText),
		"@WANTED@", wanted,
		"@LOGGED@", logged,
		"@PRINCIPAL@", principal,
		"@KEY@", key,
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
