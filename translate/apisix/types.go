package apisix

// The structs below hold the fields that meshbridge emits, in APISIX's own names and units (times
// are seconds). Field order and omitempty are part of the contract: MarshalObject of equal values
// gives equal bytes.

// Route is an APISIX route.
type Route struct {
	ID              string            `json:"id"`
	Name            string            `json:"name,omitempty"`
	Desc            string            `json:"desc,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Hosts           []string          `json:"hosts,omitempty"`
	URI             string            `json:"uri,omitempty"`
	URIs            []string          `json:"uris,omitempty"`
	Priority        int               `json:"priority"`
	Vars            Vars              `json:"vars,omitempty"`
	Plugins         Plugins           `json:"plugins,omitempty"`
	PluginConfigID  string            `json:"plugin_config_id,omitempty"`
	UpstreamID      string            `json:"upstream_id,omitempty"`
	Timeout         *Timeout          `json:"timeout,omitempty"`
	EnableWebsocket bool              `json:"enable_websocket,omitempty"`
}

// Upstream is an APISIX upstream.
type Upstream struct {
	ID            string            `json:"id"`
	Name          string            `json:"name,omitempty"`
	Desc          string            `json:"desc,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Type          string            `json:"type"`
	HashOn        string            `json:"hash_on,omitempty"`
	Key           string            `json:"key,omitempty"`
	Scheme        string            `json:"scheme,omitempty"`
	PassHost      string            `json:"pass_host,omitempty"`
	UpstreamHost  string            `json:"upstream_host,omitempty"`
	Retries       *int              `json:"retries,omitempty"`
	RetryTimeout  *float64          `json:"retry_timeout,omitempty"`
	Timeout       *Timeout          `json:"timeout,omitempty"`
	KeepalivePool *KeepalivePool    `json:"keepalive_pool,omitempty"`
	Checks        map[string]any    `json:"checks,omitempty"`
	// Nodes is never nil: an empty list answers 503, a missing one is invalid.
	Nodes []Node `json:"nodes"`
}

// Node is one endpoint of an upstream.
type Node struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Weight   int    `json:"weight"`
	Priority int    `json:"priority,omitempty"`
}

// GlobalRule has plugins that run for all requests, before those of routes. A plugin that is in two of them
// runs for neither since 3.15.
type GlobalRule struct {
	ID      string  `json:"id"`
	Plugins Plugins `json:"plugins"`
}

// Timeout holds idle timeouts in seconds; APISIX requires all three.
type Timeout struct {
	Connect float64 `json:"connect"`
	Send    float64 `json:"send"`
	Read    float64 `json:"read"`
}

// KeepalivePool bounds the idle connections of an upstream.
type KeepalivePool struct {
	Size        int     `json:"size"`
	IdleTimeout float64 `json:"idle_timeout"`
	Requests    int     `json:"requests"`
}

// PluginConfig is a set of plugins that several routes share.
type PluginConfig struct {
	ID      string            `json:"id"`
	Name    string            `json:"name,omitempty"`
	Desc    string            `json:"desc,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Plugins Plugins           `json:"plugins"`
}

// SSL is an APISIX ssl: a certificate for TLS servers, and what clients must show.
type SSL struct {
	ID     string            `json:"id"`
	Desc   string            `json:"desc,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Type   string            `json:"type,omitempty"`
	// SNI is "*" for any server name; the names, and wildcards of one label, are in SNIs.
	SNI  string   `json:"sni,omitempty"`
	SNIs []string `json:"snis,omitempty"`
	// Cert is a chain in PEM, the server's own certificate first.
	Cert string     `json:"cert"`
	Key  PrivateKey `json:"key"`
	// Certs and Keys are further ones; OpenSSL holds one for each kind of key.
	Certs     []string     `json:"certs,omitempty"`
	Keys      []PrivateKey `json:"keys,omitempty"`
	Client    *SSLClient   `json:"client,omitempty"`
	Protocols []string     `json:"ssl_protocols,omitempty"`
}

// SSLClient is what APISIX asks of the clients of an ssl.
type SSLClient struct {
	CA string `json:"ca"`
	// Depth is the number of intermediate certificates; APISIX's default is 1.
	Depth int `json:"depth"`
	// SkipMTLSURIRegex makes the certificate optional for requests whose path matches. With it,
	// not even one that does not verify ends the handshake: see $ssl_client_verify.
	SkipMTLSURIRegex []string `json:"skip_mtls_uri_regex,omitempty"`
}

// Plugins maps a plugin's name to its configuration: any value that marshals to a JSON object.
// encoding/json sorts map keys, so the bytes are deterministic.
type Plugins map[string]any

// Vars is a list of conditions, all of which must hold, in lua-resty-expr's form. An element is
// [variable, operator, value], [variable, "!", operator, value] or a nested ["AND"|"OR"|"!AND"|"!OR", …].
// A nil value is JSON null, which lua-resty-expr reads as "absent".
type Vars []any
