package accesslog

import (
	"net/netip"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// alwaysSent are the headers that a service of HTTP's log is told of, whatever else is.
func alwaysSent() []string {
	return []string{"referer", "user-agent", "x-envoy-original-path", "x-forwarded-for", "x-request-id"}
}

// HTTPEntry is what Envoy's access log service is told of an entry by a log with HTTP. What is not known of it is
// left out.
func (l *Log) HTTPEntry(e *Entry) *accesslogpb.HTTPAccessLogEntry {
	out := &accesslogpb.HTTPAccessLogEntry{
		CommonProperties: l.common(e), Request: &accesslogpb.HTTPRequestProperties{}, Response: &accesslogpb.HTTPResponseProperties{},
	}
	h := e.HTTP
	if h == nil {
		return out
	}
	switch h.Protocol {
	case "HTTP/1.0":
		out.ProtocolVersion = accesslogpb.HTTPAccessLogEntry_HTTP10
	case "HTTP/1.1":
		out.ProtocolVersion = accesslogpb.HTTPAccessLogEntry_HTTP11
	case "HTTP/2":
		out.ProtocolVersion = accesslogpb.HTTPAccessLogEntry_HTTP2
	case "HTTP/3":
		out.ProtocolVersion = accesslogpb.HTTPAccessLogEntry_HTTP3
	}
	header := func(name string) string { return validText(h.RequestHeaders[name]) }
	out.Request = &accesslogpb.HTTPRequestProperties{
		RequestMethod: corepb.RequestMethod(corepb.RequestMethod_value[h.Method]),
		Scheme:        validText(h.Scheme), Authority: validText(h.Authority), Path: validText(h.Path),
		UserAgent: header("user-agent"), Referer: header("referer"), ForwardedFor: header("x-forwarded-for"),
		RequestId: header("x-request-id"), OriginalPath: header("x-envoy-original-path"),
		RequestHeadersBytes: unsigned(h.Received - e.Received), RequestBodyBytes: unsigned(e.Received),
		RequestHeaders:                sentHeaders(l.SentRequestHeaders, h.RequestHeaders),
		DownstreamHeaderBytesReceived: unsigned(h.Received - e.Received),
	}
	out.Response = &accesslogpb.HTTPResponseProperties{
		ResponseHeadersBytes: unsigned(h.Sent - e.Sent), ResponseBodyBytes: unsigned(e.Sent),
		ResponseHeaders:     sentHeaders(l.SentResponseHeaders, h.ResponseHeaders),
		ResponseCodeDetails: validText(e.codeDetails()), DownstreamHeaderBytesSent: unsigned(h.Sent - e.Sent),
	}
	if h.Status != 0 {
		out.Response.ResponseCode = wrapperspb.UInt32(uint32(h.Status))
	}
	return out
}

// TCPEntry is HTTPEntry by a log of connections.
func (l *Log) TCPEntry(e *Entry) *accesslogpb.TCPAccessLogEntry {
	return &accesslogpb.TCPAccessLogEntry{
		CommonProperties:     l.common(e),
		ConnectionProperties: &accesslogpb.ConnectionProperties{ReceivedBytes: unsigned(e.Received), SentBytes: unsigned(e.Sent)},
	}
}

func (l *Log) common(e *Entry) *accesslogpb.AccessLogCommon {
	out := &accesslogpb.AccessLogCommon{
		DownstreamRemoteAddress: protoAddress(e.Source), DownstreamLocalAddress: protoAddress(e.Destination),
		DownstreamDirectRemoteAddress: protoAddress(e.direct()),
		UpstreamRemoteAddress:         protoAddress(e.Upstream), UpstreamLocalAddress: protoAddress(e.Local),
		TlsProperties: tlsProperties(e), ResponseFlags: responseFlags(e.Flags),
		StartTime: timestamppb.New(e.Start), Duration: durationpb.New(e.Duration),
		UpstreamCluster: validText(e.Cluster), RouteName: validText(e.Route),
		UpstreamTransportFailureReason: validText(e.transportFailure()),
		ConnectionTerminationDetails:   validText(e.terminationDetails()),
		UpstreamRequestAttemptCount:    uint32(e.attempts()),
		DownstreamWireBytesReceived:    unsigned(e.wireReceived()), DownstreamWireBytesSent: unsigned(e.wireSent()),
		UpstreamWireBytesReceived: unsigned(e.UpstreamReceived), UpstreamWireBytesSent: unsigned(e.UpstreamSent),
		CustomTags: l.Tags(e), AccessLogType: e.logType(),
	}
	h := e.http()
	if h.Status != 0 {
		out.TimeToLastDownstreamTxByte = durationpb.New(e.Duration)
	}
	if h.Ended < 0 || !e.Upstream.IsValid() {
		return out
	}
	// The last attempt ends with the request.
	attempt := max(0, e.Duration-h.Ended)
	since := func(d time.Duration) *durationpb.Duration {
		if d < 0 {
			return nil
		}
		return durationpb.New(attempt + d)
	}
	out.TimeToFirstUpstreamTxByte = since(h.Connected)
	out.TimeToFirstUpstreamRxByte = since(h.Answered)
	if h.Answered >= 0 {
		out.TimeToLastUpstreamRxByte = since(h.Ended)
	}
	return out
}

func tlsProperties(e *Entry) *accesslogpb.TLSProperties {
	if e.ServerName == "" && !e.MutualTLS && e.OwnPrincipal == "" {
		return nil
	}
	out := &accesslogpb.TLSProperties{TlsSniHostname: validText(e.ServerName)}
	if e.OwnPrincipal != "" {
		out.LocalCertificateProperties = certificateProperties(e.OwnPrincipal)
	}
	if e.MutualTLS {
		out.PeerCertificateProperties = certificateProperties(e.Principal)
	}
	return out
}

func certificateProperties(uri string) *accesslogpb.TLSProperties_CertificateProperties {
	out := &accesslogpb.TLSProperties_CertificateProperties{}
	if uri != "" {
		out.SubjectAltName = []*accesslogpb.TLSProperties_CertificateProperties_SubjectAltName{{
			San: &accesslogpb.TLSProperties_CertificateProperties_SubjectAltName_Uri{Uri: validText(uri)},
		}}
	}
	return out
}

// responseFlags returns nil where there are none.
func responseFlags(flags string) *accesslogpb.ResponseFlags {
	if flags == "" {
		return nil
	}
	out := &accesslogpb.ResponseFlags{}
	fields := map[string]*bool{
		"LH": &out.FailedLocalHealthcheck, "UH": &out.NoHealthyUpstream, "UT": &out.UpstreamRequestTimeout,
		"LR": &out.LocalReset, "UR": &out.UpstreamRemoteReset, "UF": &out.UpstreamConnectionFailure,
		"UC": &out.UpstreamConnectionTermination, "UO": &out.UpstreamOverflow, "NR": &out.NoRouteFound,
		"DI": &out.DelayInjected, "FI": &out.FaultInjected, "RL": &out.RateLimited, "RLSE": &out.RateLimitServiceError,
		"DC": &out.DownstreamConnectionTermination, "URX": &out.UpstreamRetryLimitExceeded, "SI": &out.StreamIdleTimeout,
		"IH": &out.InvalidEnvoyRequestHeaders, "DPE": &out.DownstreamProtocolError,
		"UMSDR": &out.UpstreamMaxStreamDurationReached, "RFCF": &out.ResponseFromCacheFilter,
		"NFCF": &out.NoFilterConfigFound, "DT": &out.DurationTimeout, "UPE": &out.UpstreamProtocolError,
		"NC": &out.NoClusterFound, "OM": &out.OverloadManager, "DF": &out.DnsResolutionFailure, "DR": &out.DownstreamRemoteReset,
	}
	for flag := range strings.SplitSeq(flags, ",") {
		if field := fields[flag]; field != nil {
			*field = true
		}
		if flag == "UAEX" {
			out.UnauthorizedDetails = &accesslogpb.ResponseFlags_Unauthorized{
				Reason: accesslogpb.ResponseFlags_Unauthorized_EXTERNAL_SERVICE,
			}
		}
	}
	return out
}

// protoAddress returns nil where there is no address.
func protoAddress(a netip.AddrPort) *corepb.Address {
	if !a.IsValid() {
		return nil
	}
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: a.Addr().Unmap().String(), PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// sentHeaders are those of the names that there are.
func sentHeaders(names []string, all map[string]string) map[string]string {
	var out map[string]string
	for _, name := range names {
		if value, ok := all[name]; ok {
			if out == nil {
				out = make(map[string]string, len(names))
			}
			out[name] = validText(value)
		}
	}
	return out
}

// validText replaces what is no UTF-8, which a message cannot have.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func unsigned(n int64) uint64 { return uint64(max(n, 0)) }
