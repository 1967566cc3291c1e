package apisix

import "strings"

// Kind is an APISIX collection: the directory below the etcd prefix that holds its objects.
type Kind string

// The collections that meshbridge writes.
const (
	KindRoute        Kind = "routes"
	KindUpstream     Kind = "upstreams"
	KindStreamRoute  Kind = "stream_routes"
	KindSSL          Kind = "ssls"
	KindPluginConfig Kind = "plugin_configs"
	KindGlobalRule   Kind = "global_rules"
)

// The collections that only users write.
const (
	KindConsumer       Kind = "consumers"
	KindConsumerGroup  Kind = "consumer_groups"
	KindPluginMetadata Kind = "plugin_metadata"
	KindProto          Kind = "protos"
	KindSecret         Kind = "secrets"
)

// Object is one APISIX object in the form in which it is stored: deterministic JSON, so that equal
// configuration is equal bytes. It is immutable.
type Object struct {
	Kind Kind
	ID   string
	// Value is the object's JSON. It must not be modified.
	Value []byte
}

// Key returns the key below the etcd prefix, for example "routes/r.80.reviews.k3v9q2m1x7".
func (o Object) Key() string { return string(o.Kind) + "/" + o.ID }

// ParseKey splits a key below the prefix into collection and id; ok is false where it has no id.
func ParseKey(key string) (kind Kind, id string, ok bool) {
	k, id, ok := strings.Cut(key, "/")
	return Kind(k), id, ok && id != ""
}
