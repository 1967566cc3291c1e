package translate

import (
	"slices"
	"strings"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/accesslog"
)

const codeAccessLogPartial Code = "access_log_partial"

// maxAccessLogs bounds the memory of State.accessLogs. A mesh has a handful.
const maxAccessLogs = 256

// parsedLog is what accesslog.Parse returned.
type parsedLog struct {
	log      *accesslog.Log
	problems []string
}

// tellsRequests tells that APISIX can tell of requests, and that they are then logged.
func (o *Options) tellsRequests() bool { return o.Internal.IsValid() && !o.NoAccessLogs }

// httpAccessLogs returns the access logs of a chain's connection manager that APISIX does not write, and reports what
// is not logged. Where connections are passed through, there is only capture to tell of them.
func (s *State) httpAccessLogs(d *chainDraft, hcm *http_connection_managerpb.HttpConnectionManager, share reporter) []*accesslog.Log {
	if d.passthrough != "" {
		return s.accessLogs(hcm.GetAccessLog(), false, !s.options.NoAccessLogs, httpAccessLogField, share)
	}
	logs := slices.Clone(hcm.GetAccessLog())
	if i := loggedByAPISIX(hcm, &s.options); i >= 0 {
		logs = slices.Delete(logs, i, i+1)
	}
	return s.accessLogs(logs, false, s.options.tellsRequests(), httpAccessLogField, share)
}

// accessLogs reads access logs, of connections with tcp. Unless they are told of, there is nothing to log.
func (s *State) accessLogs(configs []*accesslogpb.AccessLog, tcp, told bool, field string, share reporter) []*accesslog.Log {
	var out []*accesslog.Log
	for _, config := range configs {
		name := "the access log " + config.GetName()
		if !told {
			share("telemetry_ignored", field, name)
			continue
		}
		parsed := s.parseAccessLog(config, tcp)
		problems := strings.Join(parsed.problems, ", ")
		switch {
		case parsed.log == nil && problems != "":
			share("telemetry_ignored", field, name+" ("+problems+")")
			continue
		case parsed.log == nil:
			share("telemetry_ignored", field, name)
			continue
		case problems != "":
			share(codeAccessLogPartial, field, config.GetName(), problems)
		}
		out = append(out, parsed.log)
	}
	return out
}

// parseAccessLog parses an access log once for all that have it: istiod sends the same one with each chain.
func (s *State) parseAccessLog(config *accesslogpb.AccessLog, tcp bool) parsedLog {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(config)
	key := string(text)
	if tcp {
		key += keySeparator
	}
	if parsed, ok := s.parsedLogs[key]; ok && err == nil {
		return parsed
	}
	log, problems := accesslog.Parse(config, tcp)
	if log != nil {
		log.Hostname = hostOfNode(s.options.NodeID)
	}
	if len(s.parsedLogs) >= maxAccessLogs {
		clear(s.parsedLogs) // of those in use, others share what they have
	}
	s.parsedLogs[key] = parsedLog{log, problems}
	return s.parsedLogs[key]
}

// hostOfNode is the name that the host of a node has in Kubernetes, the pod's.
func hostOfNode(nodeID string) string {
	name, _, _ := strings.Cut(workloadName(nodeID), ".")
	return name
}

// sameAccessLogs tells whether two lists of access logs are equal.
func sameAccessLogs(a, b []*accesslog.Log) bool {
	return slices.EqualFunc(a, b, (*accesslog.Log).Equal)
}
