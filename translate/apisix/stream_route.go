package apisix

// StreamRoute is an APISIX stream_route: where TCP connections to one of its stream ports go.
type StreamRoute struct {
	ID         string            `json:"id"`
	Name       string            `json:"name,omitempty"`
	Desc       string            `json:"desc,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	ServerPort int               `json:"server_port"`
	UpstreamID string            `json:"upstream_id"`
	Plugins    Plugins           `json:"plugins,omitempty"`
}
