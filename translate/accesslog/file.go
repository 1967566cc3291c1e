package accesslog

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// defaultFormat is what Envoy writes where no format is given.
const defaultFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% ` +
	`%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ` +
	`"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

func (p *parser) parseFile(c *filelogpb.FileAccessLog) bool {
	p.unread(c, "path", "format", "json_format", "typed_json_format", "log_format")
	if c.GetPath() == "" {
		p.problem("it has no path")
		return false
	}
	p.log.Path = c.GetPath()
	//nolint:staticcheck // EnvoyFilters may still have the deprecated fields.
	switch f := c.GetAccessLogFormat().(type) {
	case *filelogpb.FileAccessLog_Format:
		p.setText(f.Format, false)
	case *filelogpb.FileAccessLog_JsonFormat:
		p.setJSON(f.JsonFormat, false)
	case *filelogpb.FileAccessLog_TypedJsonFormat:
		p.setJSON(f.TypedJsonFormat, false)
	default:
		p.parseLine(c.GetLogFormat())
	}
	return true
}

// parseStream reads a log to one of the process's own streams.
func (p *parser) parseStream(path string, config proto.Message, format *corepb.SubstitutionFormatString) bool {
	p.unread(config, "log_format")
	p.log.Path = path
	p.parseLine(format)
	return true
}

// parseLine reads the format of a log that has lines.
func (p *parser) parseLine(f *corepb.SubstitutionFormatString) {
	if f != nil {
		// What formatters there are, the operators show.
		p.unread(f, "text_format", "text_format_source", "json_format", "json_format_options", "omit_empty_values", "content_type", "formatters")
	}
	omit := f.GetOmitEmptyValues()
	switch {
	case f.GetJsonFormat() != nil:
		p.setJSON(f.GetJsonFormat(), omit)
	case f.GetTextFormatSource().GetInlineString() != "":
		p.setText(f.GetTextFormatSource().GetInlineString(), omit)
	case len(f.GetTextFormatSource().GetInlineBytes()) > 0:
		p.setText(string(f.GetTextFormatSource().GetInlineBytes()), omit)
	case f.GetTextFormat() != "": //nolint:staticcheck // EnvoyFilters may still have it.
		p.setText(f.GetTextFormat(), omit) //nolint:staticcheck // as above
	default:
		if f.GetTextFormatSource() != nil {
			p.problem("the format of its text_format_source")
		}
		p.setText(defaultFormat, omit)
	}
}

func (p *parser) setText(format string, omit bool) {
	t := p.parseTemplate(format)
	empty := emptyValue(omit)
	p.log.format = func(dst []byte, l *Log, e *Entry) []byte { return t.append(dst, l, e, empty) }
}

func (p *parser) setJSON(format *structpb.Struct, omit bool) {
	root := p.parseJSONObject(format)
	if omit {
		root.omit()
	}
	p.log.format = func(dst []byte, l *Log, e *Entry) []byte {
		dst, ok := root.append(dst, l, e, omit)
		if !ok {
			dst = append(dst, "{}"...)
		}
		return append(dst, '\n')
	}
}

// emptyValue stands for a value that there is not.
func emptyValue(omit bool) string {
	if omit {
		return ""
	}
	return "-"
}
