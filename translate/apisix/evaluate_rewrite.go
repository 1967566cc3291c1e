package apisix

import (
	"encoding/json"
	"strings"
)

// proxyRewrite computes the request target that the upstream receives.
func (p *pluginRun) proxyRewrite(config json.RawMessage) {
	const name = "proxy-rewrite"
	var c struct {
		URI      string   `json:"uri"`
		RegexURI []string `json:"regex_uri"`
		Host     string   `json:"host"`
		Real     bool     `json:"use_real_request_uri_unsafe"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	if c.Host != "" {
		p.d.Host = c.Host
	}
	defer func() {
		p.vars.rewritten = p.d.URI
		p.requestHeaders(config)
	}()
	uri, query := p.vars.path, ""
	if c.Real {
		uri = p.vars.target
		if i := strings.IndexByte(uri, '?'); i >= 0 {
			query = uri[i:]
		}
	}
	separatorEscaped := false // whether a "?" in uri starts a query
	switch {
	case c.URI != "":
		separatorEscaped = true
		uri = resolveTemplate(c.URI, p.escapedLookup)
		if query != "" && strings.Contains(uri, "?") {
			query = "&" + query[1:]
		}
		uri += query
	case len(c.RegexURI) > 0:
		separatorEscaped = !strings.Contains(uri, "?")
		for i := 0; i+1 < len(c.RegexURI); i += 2 {
			re, err := compilePCRE(c.RegexURI[i], false)
			if err != nil {
				p.note(name, err.Error())
				break
			}
			rewritten, ok := re.replaceFirst(uri, c.RegexURI[i+1])
			if ok {
				uri = rewritten
				break
			}
		}
	}
	if c.Real {
		p.d.URI = uri
		return
	}
	p.rewritten = true
	path, query, hasQuery := strings.Cut(uri, "?")
	if !separatorEscaped {
		path, hasQuery = uri, false
	}
	p.d.URI = escapeURI(path)
	if hasQuery {
		p.d.URI += "?" + query
	}
	switch {
	case p.vars.args == "":
	case hasQuery:
		p.d.URI += "&" + p.vars.args
	default:
		p.d.URI += "?" + p.vars.args
	}
}

// escapedLookup escapes the first "?" of a value, which would otherwise begin the query.
func (p *pluginRun) escapedLookup(name string) any {
	value := p.vars.lookup(name)
	if s, ok := value.(string); ok {
		return strings.Replace(s, "?", "%3F", 1)
	}
	return value
}

func (p *pluginRun) redirect(config json.RawMessage) {
	const name = "redirect"
	var c struct {
		URI         string   `json:"uri"`
		RegexURI    []string `json:"regex_uri"`
		HTTPS       bool     `json:"http_to_https"`
		Code        *int     `json:"ret_code"`
		EncodeURI   bool     `json:"encode_uri"`
		AppendQuery bool     `json:"append_query_string"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	status := 302
	if c.Code != nil {
		status = *c.Code
	}
	scheme := p.vars.scheme
	if forwarded, ok := p.vars.headers["x_forwarded_proto"]; ok {
		scheme = forwarded
	}
	var location string
	switch {
	case c.HTTPS && scheme != "https":
		location = "https://" + p.vars.host + p.vars.path + p.vars.isArgs() + p.vars.args
		status = 308
		if p.vars.method == "GET" || p.vars.method == "HEAD" {
			status = 301
		}
	case c.URI != "":
		location = p.redirectURI(c.URI)
	case len(c.RegexURI) == 2:
		re, err := compilePCRE(c.RegexURI[0], false)
		if err != nil {
			p.note(name, err.Error())
			return
		}
		rewritten, ok := re.replaceFirst(p.vars.path, c.RegexURI[1])
		if !ok {
			return
		}
		location = rewritten
	default:
		return
	}
	path, query, hasQuery := strings.Cut(location, "?")
	if c.EncodeURI {
		path = escapeURI(path)
		location = path
		if hasQuery {
			location += "?" + query
		}
	}
	if c.AppendQuery && p.vars.args != "" {
		separator := "?"
		if hasQuery {
			separator = "&"
		}
		location += separator + p.vars.args
	}
	p.d.answer(name, status)
	p.d.Location = escapeControls(location)
}

// redirectURI resolves the template of redirect's uri, whose syntax is its own: $name or ${name}, a
// backslash that keeps a reference and itself, and other backslashes dropped.
func (p *pluginRun) redirectURI(template string) string {
	var b strings.Builder
	for i := 0; i < len(template); {
		rest := template[i:]
		length := redirectName(rest[1:])
		switch {
		case rest[0] == '\\' && strings.HasPrefix(rest[1:], "$"):
			if n := redirectName(rest[2:]); n > 0 {
				b.WriteString(rest[:2+n])
				i += 2 + n
				continue
			}
			i++
		case rest[0] == '\\':
			i++
		case strings.HasPrefix(rest, "${") && redirectName(rest[2:]) > 0 && strings.HasPrefix(rest[2+redirectName(rest[2:]):], "}"):
			n := redirectName(rest[2:])
			b.WriteString(resolveReference(rest[2:2+n], p.vars.lookup))
			i += n + 3
		case rest[0] == '$' && length > 0:
			b.WriteString(resolveReference(rest[1:1+length], p.vars.lookup))
			i += 1 + length
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return b.String()
}

// redirectName returns the length of a variable's name at the start of s.
func redirectName(s string) int {
	n := 0
	for n < len(s) && (isAlphanumeric(s[n]) || s[n] == '_') {
		n++
	}
	return n
}
