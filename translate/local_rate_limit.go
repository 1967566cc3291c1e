package translate

import (
	"errors"
	"time"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	xdstypepb "github.com/cncf/xds/go/xds/type/v3"
	localratelimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// A token bucket holds so many tokens, and gets some back at intervals; every request takes one.
// APISIX's limit-req has a leaky bucket, which is a token bucket that fills evenly.

const typeLocalRateLimit = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

const (
	codeLocalRateLimit        Code = "local_rate_limit_approximate"
	codeLocalRateLimitPartial Code = "local_rate_limit_incomplete"
)

// limitReq limits the rate of requests. With NoDelay, those within the burst do not wait.
type limitReq struct {
	Meta *disabledMeta `json:"_meta,omitempty"`
	Rate float64       `json:"rate"` // per second
	// Burst is how many more requests than the rate allows are let through.
	Burst        uint32 `json:"burst"`
	Key          string `json:"key"`
	KeyType      string `json:"key_type"`
	NoDelay      bool   `json:"nodelay"`
	RejectedCode int    `json:"rejected_code"`
	Policy       string `json:"policy,omitempty"`
}

// disabledMeta keeps a plugin of a plugin_config from running on a route.
type disabledMeta struct {
	Disable bool `json:"disable"`
}

// withRateLimit gives the branches of a route that says so itself another limit than the chain's, or
// none.
func withRateLimit(rx *routeContext, branches []branch) []branch {
	name := rx.chain.plugins.rateLimitFilter
	packed := rx.filterEntry(name)
	if name == "" || packed == nil {
		return branches
	}
	field := filterField("", name)
	config, disabled := perFilterConfig(packed)
	limit := &limitReq{Meta: &disabledMeta{Disable: true}, Rate: 1, Key: "hostname", KeyType: "var", RejectedCode: 429, Policy: "local"}
	switch {
	case disabled:
	case config == nil && rx.chain.plugins.rateLimit != nil:
		return branches // enabled as it is
	case config != nil:
		if own := compileRateLimit(config, name, field, rx.report); own != nil {
			limit = own
		}
	}
	if limit.Meta != nil && rx.chain.plugins.rateLimit == nil {
		return branches // there is nothing to disable
	}
	for i, b := range branches {
		if b.upstream != nil {
			branches[i] = b.plus(pluginLimitReq, limit)
		}
	}
	return branches
}

// compileRateLimit returns nil where nothing is limited.
func compileRateLimit(packed *anypb.Any, name, field string, report reporter) *limitReq {
	c := new(localratelimitpb.LocalRateLimit)
	if err := unmarshalTyped(packed, c); err != nil {
		report(codeFilterIgnored, field, name, err.Error())
		return nil
	}
	reportUnknown(c, report, field+".")
	bucket := c.GetTokenBucket()
	interval := bucket.GetFillInterval().AsDuration()
	// Without them, both fractions are zero.
	enabled, enforced := c.GetFilterEnabled().GetDefaultValue(), c.GetFilterEnforced().GetDefaultValue()
	if bucket == nil || interval < shortestTimeout || enabled.GetNumerator() == 0 || enforced.GetNumerator() == 0 {
		return nil
	}
	if uint64(enabled.GetNumerator()) < denominatorOf(enabled) || uint64(enforced.GetNumerator()) < denominatorOf(enforced) {
		report(codeLocalRateLimitPartial, field+".filter_enforced", "all requests are limited, not a fraction of them")
	}
	if len(c.GetDescriptors()) > 0 {
		report(codeLocalRateLimitPartial, field+".descriptors", "limits for requests with certain descriptors are left out")
	}
	if len(c.GetResponseHeadersToAdd()) > 0 || c.GetEnableXRatelimitHeaders() != 0 {
		report(codeLocalRateLimitPartial, field+".response_headers_to_add", "responses get no headers about it")
	}
	perFill := max(bucket.GetTokensPerFill().GetValue(), 1)
	limit := &limitReq{
		Rate:         float64(perFill) / interval.Seconds(),
		Burst:        max(bucket.GetMaxTokens(), 1) - 1,
		Key:          "hostname", // the same for all: the plugin must have a variable
		KeyType:      "var",
		NoDelay:      true,
		RejectedCode: 429,
		Policy:       "local",
	}
	if c.GetLocalRateLimitPerDownstreamConnection() {
		limit.Key = "connection"
	}
	if status := c.GetStatus().GetCode(); status >= 400 { // Envoy takes no lower ones
		limit.RejectedCode = int(status)
	}
	report(codeLocalRateLimit, field+".token_bucket", bucket.GetMaxTokens(), (interval / time.Duration(perFill)).String(), limit.RejectedCode)
	return limit
}

// filterEntry returns the most specific configuration of a filter for the route, as it is packed; nil
// where there is none.
func (rx *routeContext) filterEntry(filter string) *anypb.Any {
	for _, level := range []map[string]*anypb.Any{
		rx.route.GetTypedPerFilterConfig(), rx.vhost.GetTypedPerFilterConfig(), rx.config.GetTypedPerFilterConfig(),
	} {
		if packed := level[filter]; packed != nil {
			return packed
		}
	}
	return nil
}

// unmarshalTyped reads a message that may be a TypedStruct, as which an EnvoyFilter can have it.
func unmarshalTyped(packed *anypb.Any, into proto.Message) error {
	var value *structpb.Struct
	switch packed.MessageName() {
	case "udpa.type.v1.TypedStruct":
		s := new(udpapb.TypedStruct)
		if err := packed.UnmarshalTo(s); err != nil {
			return err
		}
		value = s.GetValue()
	case "xds.type.v3.TypedStruct":
		s := new(xdstypepb.TypedStruct)
		if err := packed.UnmarshalTo(s); err != nil {
			return err
		}
		value = s.GetValue()
	default:
		return packed.UnmarshalTo(into)
	}
	text, err := protojson.Marshal(value)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, into); err != nil {
		// The library's message differs from build to build.
		return errors.New("its value is not that of " + string(into.ProtoReflect().Descriptor().FullName()))
	}
	return nil
}
