package xds

import (
	"errors"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// maxNACKBytes keeps error_detail far from any limit on messages; the log has the rest.
const maxNACKBytes = 4096

// subscriptions makes the requests of one stream. The rules (xDS protocol, and istiod's reading of
// it) that make it more than a formality:
//
//   - An ACK or NACK of a delta response carries its nonce and changes no subscription; a change is
//     a request without a nonce. In the state-of-the-world variant every request carries all names
//     and the last nonce, or the server takes it for a new stream or for an answer out of date.
//   - A nonce belongs to a stream; the version last accepted outlives it.
//   - A first request without names is a wildcard subscription, so a type that is subscribed to by
//     name is not requested before there is a name.
type subscriptions struct {
	cache    *cache
	versions map[string]string // last accepted, by type; outlives the stream
	node     *corepb.Node      // until it has been sent
	world    bool              // state-of-the-world variant
	streams  map[string]*typeStream
}

// typeStream is the state of one type on one stream.
type typeStream struct {
	nonce    string
	answered bool
}

func newSubscriptions(c *cache, versions map[string]string, node *corepb.Node, world bool) *subscriptions {
	return &subscriptions{cache: c, versions: versions, node: node, world: world, streams: map[string]*typeStream{}}
}

// opening returns the requests that a stream starts with: everything that is wanted, in order.
func (s *subscriptions) opening(typeURLs []string) []request {
	var requests []request
	for _, url := range typeURLs {
		t := s.cache.types[url]
		if t.wildcard || len(t.wanted) > 0 {
			requests = append(requests, s.first(t))
		}
	}
	return requests
}

func (s *subscriptions) first(t *cachedType) request {
	s.streams[t.url] = &typeStream{}
	r := s.request(t)
	if s.world {
		return r
	}
	if !t.wildcard {
		r.subscribe = t.names()
	}
	r.initial = s.cache.versions(t.url)
	return r
}

// change returns the request that follows a change of what is wanted by name.
func (s *subscriptions) change(change subscriptionChange) request {
	t := s.cache.types[change.typeURL]
	if s.streams[t.url] == nil {
		return s.first(t)
	}
	r := s.request(t)
	if !s.world {
		r.subscribe, r.unsubscribe = change.subscribe, change.unsubscribe
	}
	return r
}

// receive notes a response and completes what the protocol leaves unsaid about it. It returns false
// for a response to nothing that was requested.
func (s *subscriptions) receive(r *response) bool {
	stream := s.streams[r.typeURL]
	if stream == nil {
		return false
	}
	stream.nonce = r.nonce
	if t := s.cache.types[r.typeURL]; t.wildcard {
		switch {
		case s.world:
			r.scope = full
		case !stream.answered:
			r.scope = baseline
		}
	}
	stream.answered = true
	return true
}

// answer returns the ACK, or the NACK if there are errors.
func (s *subscriptions) answer(in response, errs []error) request {
	t := s.cache.types[in.typeURL]
	if len(errs) == 0 {
		s.versions[t.url] = in.version
	}
	r := s.request(t)
	r.nonce = in.nonce
	if len(errs) > 0 {
		detail := errors.Join(errs...).Error()
		r.nack = &status.Status{
			Code:    int32(codes.InvalidArgument),
			Message: strings.ToValidUTF8(detail[:min(len(detail), maxNACKBytes)], "?"),
		}
	}
	return r
}

func (s *subscriptions) request(t *cachedType) request {
	r := request{node: s.node, typeURL: t.url}
	s.node = nil
	if s.world {
		r.nonce = s.streams[t.url].nonce
		r.version = s.versions[t.url]
		if !t.wildcard {
			r.names = t.names()
		}
	}
	return r
}
