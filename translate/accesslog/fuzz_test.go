package accesslog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	celfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// FuzzFormat gives any text as a format, in which any text is a header, and any as an expression: lines in JSON
// are JSON, and nothing panics.
func FuzzFormat(f *testing.F) {
	f.Add(istioFormat, "curl", "response.code >= 400")
	f.Add("%REQ(a?b):3% %% %START_TIME(%s.%3f %Q)% %", "\xff\"\n", `request.headers["a"] in ["b", 'c'] && !has(response.code)`)
	f.Fuzz(func(t *testing.T, format, header, expression string) {
		entries := []*Entry{request(), connection(), {}}
		entries[0].HTTP.RequestHeaders = map[string]string{"a": header, "user-agent": header}
		filter := &accesslogpb.AccessLogFilter{FilterSpecifier: &accesslogpb.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogpb.ExtensionFilter{}}}
		if utf8.ValidString(expression) {
			filter.GetExtensionFilter().ConfigType = &accesslogpb.ExtensionFilter_TypedConfig{TypedConfig: packed(&celfilterpb.ExpressionFilter{Expression: expression})}
		}
		if !utf8.ValidString(format) {
			return
		}
		lines := file(text(format))
		fields := &structpb.Struct{Fields: map[string]*structpb.Value{format: structpb.NewStringValue(format), "b": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("%REQ(a)%")}})}}
		objectFormat := jsonFormat(t, "{}")
		objectFormat.GetJsonFormat().Fields = fields.GetFields()
		objects := file(objectFormat)
		for _, config := range []*accesslogpb.AccessLog{lines, objects} {
			config.Filter = filter
			log, _ := Parse(config, false)
			for _, e := range entries {
				log.Wants(e)
				line := log.Line(e)
				if config == objects && (!json.Valid(line) || !bytes.HasSuffix(line, []byte("}\n")) || !utf8.Valid(line)) {
					t.Fatalf("%q is no line of JSON", line)
				}
				if config == lines && !strings.Contains(format, "%") && string(line) != format && format != "" {
					t.Fatalf("%q became %q", format, line)
				}
			}
		}
	})
}
