package xds

import (
	"fmt"
	"sync/atomic"
	"time"
	"weak"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources that meshbridge subscribes to or recognises.
const (
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ExtensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	NameTableType = "type.googleapis.com/istio.networking.nds.v1.NameTable"
)

// Key names one resource.
type Key struct {
	Type string // type URL
	Name string
}

// String returns the short type and the name, as log lines and error messages show it.
func (k Key) String() string { return ShortType(k.Type) + " " + k.Name }

// Resource is one decoded and validated resource. It is immutable and safe for concurrent use.
type Resource struct {
	Key
	// Version is the resource version as received; istiod leaves it empty.
	Version string
	// Body holds the bytes exactly as received. It must not be modified.
	Body *anypb.Any
	// Received is when these bytes came for the first time.
	Received time.Time
	// Response is the version of the response that they came with; of files there is none.
	Response string

	// decoded lets several readers of one update share a decoded form without keeping it for the
	// life of the resource: decoded clusters are several times the size of their bytes.
	decoded atomic.Pointer[weak.Pointer[decodedMessage]]
}

// decodedMessage is what weak pointers point to: they need a concrete type.
type decodedMessage struct{ message proto.Message }

// Message returns the decoded resource. The result is shared and must not be modified. The decoded
// form of what has changed lives as long as the Update that brought it. Message decodes again when
// the garbage collector has dropped it, so hold on to the result while working.
func (r *Resource) Message() (proto.Message, error) {
	if p := r.decoded.Load(); p != nil {
		if d := p.Value(); d != nil {
			return d.message, nil
		}
	}
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Key, err)
	}
	r.cache(m)
	return m, nil
}

// cache remembers the decoded form for as long as somebody keeps what it returns.
func (r *Resource) cache(m proto.Message) *decodedMessage {
	d := &decodedMessage{message: m}
	p := weak.Make(d)
	r.decoded.Store(&p)
	return d
}

// Decode returns the resource as T, for example Decode[*clusterpb.Cluster](r).
func Decode[T proto.Message](r *Resource) (T, error) {
	var zero T
	m, err := r.Message()
	if err != nil {
		return zero, err
	}
	t, ok := m.(T)
	if !ok {
		return zero, fmt.Errorf("%s: is a %T", r.Key, m)
	}
	return t, nil
}
