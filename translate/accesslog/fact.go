package accesslog

import (
	"net/netip"
	"strings"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
)

// What follows from an entry.

// http is the entry's HTTP, with nothing in it where there is none.
func (e *Entry) http() *HTTP {
	if e.HTTP == nil {
		return &HTTP{Connected: -1, Answered: -1, Ended: -1}
	}
	return e.HTTP
}

func (e *Entry) wireReceived() int64 {
	if e.HTTP == nil {
		return e.Received
	}
	return e.HTTP.Received
}

func (e *Entry) wireSent() int64 {
	if e.HTTP == nil {
		return e.Sent
	}
	return e.HTTP.Sent
}

// attempts is how many endpoints were tried.
func (e *Entry) attempts() int64 {
	switch {
	case e.HTTP != nil:
		return int64(e.HTTP.Attempts)
	case e.Cluster != "" && !e.hasFlag("UH") && !e.hasFlag("NC"):
		return 1
	}
	return 0
}

// untilAnswer is the time from the beginning of the request until the endpoint began to answer. The last
// attempt ends with the request.
func (e *Entry) untilAnswer() (d time.Duration, ok bool) {
	h := e.http()
	if h.Answered < 0 || h.Ended < h.Answered || !e.Upstream.IsValid() {
		return 0, false
	}
	return max(0, e.Duration-h.Ended) + h.Answered, true
}

// logType is the kind of event: entries are made at the end.
func (e *Entry) logType() accesslogpb.AccessLogType {
	switch {
	case e.HTTP != nil:
		return accesslogpb.AccessLogType_DownstreamEnd
	case e.Chain != "":
		return accesslogpb.AccessLogType_TcpConnectionEnd
	}
	return accesslogpb.AccessLogType_NotSet // of a listener
}

// transportFailure is why an endpoint was not reached.
func (e *Entry) transportFailure() string {
	if e.hasFlag("UF") {
		return e.Detail
	}
	return ""
}

// terminationDetails is why the proxy has closed a connection. It is one word: in lines it has no quotes.
func (e *Entry) terminationDetails() string {
	switch {
	case e.HTTP != nil || e.hasFlag("UF"):
		return ""
	case e.hasFlag("NR"):
		return "filter_chain_not_found"
	}
	return strings.Join(strings.Fields(e.Detail), "_")
}

// codeDetails says who chose the status, and why, in Envoy's words, as far as the flags tell.
func (e *Entry) codeDetails() string {
	if e.HTTP == nil {
		return ""
	}
	for flag := range strings.SplitSeq(e.Flags, ",") {
		switch flag {
		case "NR":
			return "route_not_found"
		case "NC":
			return "cluster_not_found"
		case "UH":
			return "no_healthy_upstream"
		case "UF":
			reason := "remote_connection_failure"
			if e.Detail != "" {
				reason += "|" + strings.Join(strings.Fields(e.Detail), "_")
			}
			return "upstream_reset_before_response_started{" + reason + "}"
		case "UC":
			return "upstream_reset_before_response_started{connection_termination}"
		case "UO":
			return "upstream_reset_before_response_started{overflow}"
		case "UT":
			return "response_timeout"
		case "DC":
			return "downstream_remote_disconnect"
		case "FI":
			return "fault_filter_abort"
		case "RL":
			return "local_rate_limited"
		}
	}
	if e.Upstream.IsValid() && e.HTTP.Status != 0 {
		return "via_upstream"
	}
	return ""
}

func (e *Entry) hasFlag(short string) bool {
	for flag := range strings.SplitSeq(e.Flags, ",") {
		if flag == short {
			return true
		}
	}
	return false
}

// direct is whom the connection came from.
func (e *Entry) direct() netip.AddrPort {
	if e.Direct.IsValid() {
		return e.Direct
	}
	return e.Source
}
