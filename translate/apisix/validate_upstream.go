package apisix

import (
	"math"
	"slices"
	"strings"
)

// Validate checks the upstream. See [Validate].
func (u *Upstream) Validate(version Version) error {
	v := &validation{object: string(KindUpstream) + "/" + u.ID, version: version}
	v.common(u.ID, u.Name, u.Desc, u.Labels)

	// The schema takes any type; an unknown one answers every request with 500.
	v.oneOf("type", u.Type, "roundrobin", "chash", "least_conn", "ewma")
	v.hashing(u)
	if u.Scheme != "" {
		v.oneOf("scheme", u.Scheme, "http", "https", "grpc", "grpcs", "tcp", "tls", "udp", "kafka")
	}
	if u.PassHost != "" {
		v.oneOf("pass_host", u.PassHost, "pass", "node", "rewrite")
	}
	v.require(u.PassHost != "rewrite" || u.UpstreamHost != "", "upstream_host", `is required where pass_host is "rewrite"`)
	v.require(u.UpstreamHost == "" || isHostPattern(u.UpstreamHost), "upstream_host", "%q is not a host", u.UpstreamHost)
	v.require(u.Retries == nil || *u.Retries >= 0, "retries", "must not be below 0")
	v.require(u.RetryTimeout == nil || *u.RetryTimeout >= 0, "retry_timeout", "must not be below 0")
	v.timeout("timeout", u.Timeout)
	if p := u.KeepalivePool; p != nil {
		v.require(p.Size >= 1, "keepalive_pool.size", "must be at least 1")
		v.require(p.IdleTimeout >= 0, "keepalive_pool.idle_timeout", "must not be below 0")
		v.require(p.Requests >= 1, "keepalive_pool.requests", "must be at least 1")
	}
	if u.Checks != nil {
		_, active := u.Checks["active"].(map[string]any)
		v.require(active, "checks.active", "is required, also where only passive checks are wanted")
	}
	v.nodes(u.Nodes)
	return v.err()
}

func (v *validation) nodes(nodes []Node) {
	v.require(nodes != nil, "nodes", "is required; an empty list answers 503")
	type address struct {
		host string
		port int
	}
	seen := make(map[address]bool, len(nodes))
	for i, n := range nodes {
		key := address{n.Host, n.Port}
		switch {
		case !isHostPattern(n.Host), strings.HasPrefix(n.Host, "*"):
			v.fail(at("nodes", i)+".host", "%q is not a host", n.Host)
		case n.Port < 1, n.Port > math.MaxUint16:
			v.fail(at("nodes", i)+".port", "%d is not within %d and %d", n.Port, 1, math.MaxUint16)
		case n.Weight < 0:
			v.fail(at("nodes", i)+".weight", "must not be below 0")
		case seen[key]:
			v.fail(at("nodes", i), "%s:%d is there twice: balancers know nodes by address", n.Host, n.Port)
		}
		seen[key] = true
	}
}

// hashing checks hash_on and key, which count for chash alone.
func (v *validation) hashing(u *Upstream) {
	if u.HashOn != "" {
		v.oneOf("hash_on", u.HashOn, "vars", "header", "cookie", "consumer", "vars_combinations")
	}
	if u.Type != "chash" {
		return
	}
	switch u.HashOn {
	case "", "vars":
		v.require(isHashVariable(u.Key), "key", "%q is not a variable that APISIX hashes on: %s and arg_…", u.Key, strings.Join(hashVariables(), ", "))
	case "header", "cookie":
		v.require(u.Key != "" && only(u.Key, func(c byte) bool { return isIDByte(c) && c != '.' }), "key", "%q is not letters, digits, - and _", u.Key)
	case "vars_combinations":
		v.require(u.Key != "", "key", "is required")
	}
}

func hashVariables() []string {
	return []string{
		"uri", "server_name", "server_addr", "request_uri", "remote_port", "remote_addr",
		"query_string", "host", "hostname", "mqtt_client_id",
	}
}

func isHashVariable(s string) bool {
	if arg, ok := strings.CutPrefix(s, "arg_"); ok {
		return arg != "" && only(arg, func(c byte) bool { return isIDByte(c) && c != '.' })
	}
	return slices.Contains(hashVariables(), s)
}
