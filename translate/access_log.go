package translate

import (
	"regexp"
	"slices"
	"strings"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/apisix"
)

// APISIX's file-logger writes one JSON object for each request, whose fields are variables. The text of
// a text format is lost, and what it says becomes fields under the names that Istio's own JSON format
// has for them.

const codeAccessLog Code = "access_log_approximate"

const httpAccessLogField = "http_connection_manager.access_log"

// fileLogger writes a line for each request for which one of Match holds, in APISIX's own format where
// there is no other.
type fileLogger struct {
	Path      string            `json:"path"`
	LogFormat map[string]string `json:"log_format,omitempty"`
	Match     []apisix.Vars     `json:"match,omitempty"`
}

// defaultLogFormat is what Envoy writes where no format is given.
const defaultLogFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% ` +
	`%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ` +
	`"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"`

// accessLogOf returns the access log of a connection manager that APISIX writes, and reports what is not logged;
// nil where there is none.
func accessLogOf(hcm *http_connection_managerpb.HttpConnectionManager, options *Options, report reporter) *fileLogger {
	i := loggedByAPISIX(hcm, options)
	if i < 0 {
		return nil
	}
	l := hcm.GetAccessLog()[i]
	path, format := logFile(l)
	var left []string
	log := &fileLogger{Path: path}
	if options.APISIXVersion.Has(apisix.FeatureLogFormat) {
		log.LogFormat, left = logFields(format, options.Profile)
	} else {
		left = append(left, "its format")
	}
	if f := l.GetFilter(); f != nil {
		condition, exact := logFilter(f)
		filters := options.APISIXVersion.Has(apisix.FeatureLogMatch)
		if !exact || !filters {
			left = append(left, "a part of its filter")
		}
		if condition != nil && filters {
			log.Match = []apisix.Vars{apisix.List(condition)}
		}
	}
	without := ""
	if len(left) > 0 {
		without = ", without " + strings.Join(left, ", ")
	}
	report(codeAccessLog, httpAccessLogField, path, without)
	return log
}

// loggedByAPISIX returns which access log of a connection manager APISIX writes: the first to a file, or -1.
func loggedByAPISIX(hcm *http_connection_managerpb.HttpConnectionManager, options *Options) int {
	if options.BridgeAccessLogs && options.tellsRequests() {
		return -1
	}
	return slices.IndexFunc(hcm.GetAccessLog(), func(l *accesslogpb.AccessLog) bool {
		path, _ := logFile(l)
		return path != ""
	})
}

// logFile returns path and format of an access log; no path for one that is no file.
func logFile(l *accesslogpb.AccessLog) (path string, format *corepb.SubstitutionFormatString) {
	switch messageName(l.GetTypedConfig()) {
	case "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":
		return "/dev/stdout", decode[streamlogpb.StdoutAccessLog](l.GetTypedConfig()).GetLogFormat()
	case "envoy.extensions.access_loggers.stream.v3.StderrAccessLog":
		return "/dev/stderr", decode[streamlogpb.StderrAccessLog](l.GetTypedConfig()).GetLogFormat()
	case "envoy.extensions.access_loggers.file.v3.FileAccessLog":
	default:
		return "", nil
	}
	c := decode[filelogpb.FileAccessLog](l.GetTypedConfig())
	text := func(s string) *corepb.SubstitutionFormatString {
		return &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: s}},
		}}
	}
	json := func(s *structpb.Struct) *corepb.SubstitutionFormatString {
		return &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_JsonFormat{JsonFormat: s}}
	}
	//nolint:staticcheck // EnvoyFilters may still have the deprecated fields.
	switch f := c.GetAccessLogFormat().(type) {
	case *filelogpb.FileAccessLog_LogFormat:
		format = f.LogFormat
	case *filelogpb.FileAccessLog_Format:
		format = text(f.Format)
	case *filelogpb.FileAccessLog_JsonFormat:
		format = json(f.JsonFormat)
	case *filelogpb.FileAccessLog_TypedJsonFormat:
		format = json(f.TypedJsonFormat)
	}
	return c.GetPath(), format
}

// logFields returns the fields of a line, and names what cannot be one.
func logFields(format *corepb.SubstitutionFormatString, profile Profile) (fields map[string]string, left []string) {
	fields = map[string]string{}
	if json := format.GetJsonFormat(); json != nil {
		addLogFields(fields, "", json, profile, &left)
		slices.Sort(left)
		return fields, left
	}
	text := format.GetTextFormatSource().GetInlineString()
	if text == "" {
		text = format.GetTextFormat() //nolint:staticcheck // see logFile
	}
	if text == "" {
		text = defaultLogFormat
	}
	for _, m := range commandOperator().FindAllStringSubmatch(text, -1) {
		if variable := logVariable(m[1], m[2], profile); variable != "" {
			fields[logFieldName(m[1], m[2])] = "$" + variable
		} else if !slices.Contains(left, m[0]) {
			left = append(left, m[0])
		}
	}
	return fields, left
}

func commandOperator() *regexp.Regexp {
	return regexp.MustCompile(`%([A-Z0-9_]+)(?:\(([^)]*)\))?(?::[0-9]+)?%`)
}

// addLogFields adds the fields of a JSON format, nested ones under names with a dot: not every version
// of APISIX has objects within objects.
func addLogFields(fields map[string]string, prefix string, format *structpb.Struct, profile Profile, left *[]string) {
	whole := regexp.MustCompile(`\A` + commandOperator().String() + `\z`)
	for name, value := range format.GetFields() {
		name = prefix + name
		switch v := value.GetKind().(type) {
		case *structpb.Value_StructValue:
			addLogFields(fields, name+".", v.StructValue, profile, left)
		case *structpb.Value_StringValue:
			m := whole.FindStringSubmatch(v.StringValue)
			variable := ""
			if m != nil {
				variable = logVariable(m[1], m[2], profile)
			}
			switch {
			case variable != "":
				fields[name] = "$" + variable
			case strings.ContainsAny(v.StringValue, "%$"):
				*left = append(*left, name)
			default:
				fields[name] = v.StringValue
			}
		default:
			*left = append(*left, name)
		}
	}
}

// logFieldName is the name of an operator's value in Istio's JSON format, or one like those.
func logFieldName(operator, argument string) string {
	switch operator {
	case "REQ":
		_, header, choice := strings.Cut(argument, "?")
		if !choice {
			header = argument
		}
		header = strings.ToLower(header)
		if header == "x-request-id" {
			return "request_id"
		}
		return strings.ReplaceAll(strings.TrimPrefix(header, ":"), "-", "_")
	case "RESP":
		return strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(argument), "x-envoy-"), "-", "_")
	}
	return strings.ToLower(operator)
}

// logVariable returns the variable for a command operator when a request is over; empty without one.
func logVariable(operator, argument string, profile Profile) string {
	switch operator {
	case "REQ":
		if first, second, choice := strings.Cut(argument, "?"); choice && strings.EqualFold(first, "x-envoy-original-path") {
			argument = second // nginx does not forget it
		}
		return requestVariable(argument)
	case "RESP":
		if strings.EqualFold(argument, "x-envoy-upstream-service-time") {
			return "upstream_response_time"
		}
		if argument == "" || strings.Contains(argument, "?") {
			return ""
		}
		return "sent_http_" + strings.ToLower(strings.ReplaceAll(argument, "-", "_"))
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return "remote_addr"
	case "DOWNSTREAM_LOCAL_ADDRESS":
		if address, _ := profile.OriginalDestination(); address != "" {
			return address
		}
		return varOriginalDestination
	case "START_TIME":
		return "time_iso8601"
	case "RESPONSE_CODE":
		return "status"
	case "UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS":
		return "upstream_addr"
	case "ROUTE_NAME":
		return "route_name"
	case "BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_RECEIVED":
		return "request_length"
	case "BYTES_SENT":
		return "body_bytes_sent"
	case "DOWNSTREAM_WIRE_BYTES_SENT":
		return "bytes_sent"
	case "DURATION":
		return "request_time"
	case "CONNECTION_ID":
		return "connection"
	}
	return connectionVariable(operator, profile)
}

// logFilter returns the condition under which a request is logged; nil where all are. exact is false
// where requests are logged that Envoy would not log.
func logFilter(f *accesslogpb.AccessLogFilter) (condition apisix.Cond, exact bool) {
	switch s := f.GetFilterSpecifier().(type) {
	case *accesslogpb.AccessLogFilter_StatusCodeFilter:
		return compared("status", s.StatusCodeFilter.GetComparison(), 1)
	case *accesslogpb.AccessLogFilter_DurationFilter:
		return compared("request_time", s.DurationFilter.GetComparison(), 1000)
	case *accesslogpb.AccessLogFilter_NotHealthCheckFilter:
		return nil, true
	case *accesslogpb.AccessLogFilter_AndFilter:
		var all []apisix.Cond
		exact = true
		for _, one := range s.AndFilter.GetFilters() {
			c, ok := logFilter(one)
			exact = exact && ok
			if c != nil {
				all = append(all, c)
			}
		}
		if len(all) == 0 {
			return nil, exact
		}
		return apisix.And(all...), exact
	case *accesslogpb.AccessLogFilter_OrFilter:
		var some []apisix.Cond
		exact = true
		for _, one := range s.OrFilter.GetFilters() {
			c, ok := logFilter(one)
			exact = exact && ok
			if c == nil {
				return nil, exact
			}
			some = append(some, c)
		}
		return apisix.Or(some...), exact
	}
	return nil, false
}

// compared compares a variable with a number, of which it has so many in one.
func compared(variable string, c *accesslogpb.ComparisonFilter, unit float64) (condition apisix.Cond, exact bool) {
	value := float64(c.GetValue().GetDefaultValue()) / unit
	switch c.GetOp() {
	case accesslogpb.ComparisonFilter_EQ:
		return apisix.Cond{variable, "==", value}, true
	case accesslogpb.ComparisonFilter_GE:
		return apisix.Cond{variable, ">=", value}, true
	case accesslogpb.ComparisonFilter_LE:
		return apisix.Cond{variable, "<=", value}, true
	case accesslogpb.ComparisonFilter_NE:
		return apisix.Cond{variable, "~=", value}, true
	}
	return nil, false
}
