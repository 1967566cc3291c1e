package accesslog

import (
	"strings"

	otellogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	tracingpb "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

func (p *parser) parseOpenTelemetry(c *otellogpb.OpenTelemetryAccessLogConfig) bool {
	p.unread(c, "common_config", "http_service", "grpc_service", "disable_builtin_labels", "resource_attributes", "body",
		"attributes", "stat_prefix", "formatters", "log_name", "buffer_flush_interval", "buffer_size_bytes",
		"filter_state_objects_to_log", "custom_tags")
	l := p.log
	l.Kind, l.BuiltinLabels = KindOpenTelemetry, !c.GetDisableBuiltinLabels()
	switch {
	case c.GetHttpService() != nil:
		p.problem("its service is one of http_service")
		return false
	case c.GetGrpcService() != nil:
		if !p.parseService(c.GetGrpcService()) {
			return false
		}
	default:
		if !p.parseCommon(c.GetCommonConfig()) { //nolint:staticcheck // what Istio sets
			return false
		}
	}
	if name := c.GetLogName(); name != "" {
		l.Name = name
	}
	p.parseBuffer(c.GetBufferFlushInterval(), c.GetBufferSizeBytes())
	p.parseFilterState(c.GetFilterStateObjectsToLog())
	p.parseTags(c.GetCustomTags())
	l.resource = c.GetResourceAttributes().GetValues()
	if c.GetBody() != nil {
		body := p.parseAny(c.GetBody())
		l.body = &body
	}
	l.attributes = p.parseKeyValues(c.GetAttributes().GetValues())
	return true
}

// Body is the body of OpenTelemetry's record about an entry; nil is none.
func (l *Log) Body(e *Entry) *commonpb.AnyValue {
	if l.body == nil {
		return nil
	}
	return l.body.value(l, e)
}

// Attributes are those of OpenTelemetry's record about an entry.
func (l *Log) Attributes(e *Entry) []*commonpb.KeyValue {
	out := keyValues(l.attributes, l, e)
	for _, t := range l.tags {
		if value, ok := t.value(e); ok {
			out = append(out, &commonpb.KeyValue{Key: t.name, Value: textValue(value)})
		}
	}
	return out
}

// Resource are the attributes of the resource that OpenTelemetry's records are of. The caller must not modify
// them.
func (l *Log) Resource() []*commonpb.KeyValue { return l.resource }

// Tags are the custom tags that entries have for a gRPC service, by name; nil is none.
func (l *Log) Tags(e *Entry) map[string]string {
	var out map[string]string
	for _, t := range l.tags {
		if value, ok := t.value(e); ok {
			if out == nil {
				out = make(map[string]string, len(l.tags))
			}
			out[t.name] = strings.ToValidUTF8(value, "\uFFFD")
		}
	}
	return out
}

// anyValue is one of OpenTelemetry's values, with operators in its strings. One of constant, template, fields
// and elements is set, or none.
type anyValue struct {
	constant *commonpb.AnyValue
	template template
	object   bool
	fields   []keyValue
	elements []anyValue
}

type keyValue struct {
	key string
	anyValue
}

func (p *parser) parseAny(v *commonpb.AnyValue) anyValue {
	switch value := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		if strings.Contains(value.StringValue, "%") {
			return anyValue{template: p.parseTemplate(value.StringValue)}
		}
	case *commonpb.AnyValue_KvlistValue:
		return anyValue{object: true, fields: p.parseKeyValues(value.KvlistValue.GetValues())}
	case *commonpb.AnyValue_ArrayValue:
		var out anyValue
		for _, element := range value.ArrayValue.GetValues() {
			out.elements = append(out.elements, p.parseAny(element))
		}
		return out
	}
	return anyValue{constant: v}
}

func (p *parser) parseKeyValues(list []*commonpb.KeyValue) []keyValue {
	var out []keyValue
	for _, kv := range list {
		out = append(out, keyValue{kv.GetKey(), p.parseAny(kv.GetValue())})
	}
	return out
}

// value is the value for an entry. What operators stand for is text there, as in Envoy.
func (v *anyValue) value(l *Log, e *Entry) *commonpb.AnyValue {
	switch {
	case v.constant != nil:
		return v.constant
	case v.template != nil:
		return textValue(string(v.template.append(nil, l, e, emptyValue(false))))
	case v.object:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: keyValues(v.fields, l, e)}}}
	}
	list := &commonpb.ArrayValue{}
	for i := range v.elements {
		list.Values = append(list.Values, v.elements[i].value(l, e))
	}
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: list}}
}

// textValue is a text, of which protocol buffers take UTF-8 alone.
func textValue(text string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: strings.ToValidUTF8(text, "\uFFFD")}}
}

func keyValues(list []keyValue, l *Log, e *Entry) []*commonpb.KeyValue {
	var out []*commonpb.KeyValue
	for i := range list {
		out = append(out, &commonpb.KeyValue{Key: list[i].key, Value: list[i].value(l, e)})
	}
	return out
}

// tag is a custom tag.
type tag struct {
	name  string
	value func(*Entry) (string, bool)
}

func (p *parser) parseTags(tags []*tracingpb.CustomTag) {
	for _, t := range tags {
		var value func(*Entry) (string, bool)
		switch kind := t.GetType().(type) {
		case *tracingpb.CustomTag_Literal_:
			value = func(*Entry) (string, bool) { return kind.Literal.GetValue(), true }
		case *tracingpb.CustomTag_RequestHeader:
			header := p.requestHeader(strings.ToLower(kind.RequestHeader.GetName()))
			value = func(e *Entry) (string, bool) {
				if text, ok := header(e); ok {
					return text, true
				}
				return kind.RequestHeader.GetDefaultValue(), kind.RequestHeader.GetDefaultValue() != ""
			}
		case *tracingpb.CustomTag_Value:
			whole, log := p.parseTemplate(kind.Value), p.log
			value = func(e *Entry) (string, bool) {
				text := string(whole.append(nil, log, e, ""))
				return text, text != ""
			}
		default: // of the environment, or of metadata
			p.problem("the custom tag " + t.GetTag())
			continue
		}
		p.log.tags = append(p.log.tags, tag{t.GetTag(), value})
	}
}
