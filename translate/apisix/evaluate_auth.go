package apisix

import (
	"encoding/json"
	"maps"
	"strings"
)

// AuthRequest is what forward-auth asks a service.
type AuthRequest struct {
	URI string
	// Headers are those of the request to the service, by name as it is written.
	Headers map[string]string
}

// AuthAnswer is what the service answers. Names of headers are in lower case.
type AuthAnswer struct {
	Status  int
	Headers map[string][]string
	Body    string
}

// forwardAuth asks a service. Without one, it is as if it did not answer.
func (p *pluginRun) forwardAuth(config json.RawMessage) {
	const name = "forward-auth"
	var c struct {
		URI             string            `json:"uri"`
		Degrades        bool              `json:"allow_degradation"`
		StatusOnError   int               `json:"status_on_error"`
		RequestHeaders  []string          `json:"request_headers"`
		ExtraHeaders    map[string]string `json:"extra_headers"`
		UpstreamHeaders []string          `json:"upstream_headers"`
		ClientHeaders   []string          `json:"client_headers"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	if p.e.options.Ask == nil {
		p.note(name, "there is no service to ask")
		if c.StatusOnError == 0 {
			c.StatusOnError = 403
		}
		if !c.Degrades {
			p.d.answer(name, c.StatusOnError)
		}
		return
	}
	r := AuthRequest{URI: c.URI, Headers: map[string]string{
		"X-Forwarded-Proto": p.vars.scheme, "X-Forwarded-Method": p.vars.method, "X-Forwarded-Host": p.vars.host,
		"X-Forwarded-Uri": p.vars.path + p.vars.isArgs() + p.vars.args, "X-Forwarded-For": p.vars.addr,
	}}
	for header, value := range c.ExtraHeaders {
		r.Headers[header] = resolveTemplate(value, p.vars.lookup)
	}
	for _, header := range c.RequestHeaders {
		if values := newHeaderLines(p.vars.request.Headers)[strings.ToLower(header)]; len(values) > 0 && r.Headers[header] == "" {
			r.Headers[header] = values[0]
		}
	}
	answer := p.e.options.Ask(r)
	if answer.Status >= 300 {
		p.d.answer(name, answer.Status)
		p.d.Body = answer.Body
		for _, header := range c.ClientHeaders {
			if values := answer.Headers[strings.ToLower(header)]; len(values) > 0 {
				p.d.Response[strings.ToLower(header)] = values
			}
		}
		return
	}
	p.vars.headers = maps.Clone(p.vars.headers)
	lines := headerLines(p.d.Headers)
	for _, header := range c.UpstreamHeaders {
		values := answer.Headers[strings.ToLower(header)]
		delete(p.vars.headers, headerVariable(header))
		if len(values) > 0 {
			p.vars.headers[headerVariable(header)] = strings.Join(values, ", ")
		}
		lines.remove(header)
		if strings.EqualFold(header, "te") {
			continue // which nginx passes on to no upstream
		}
		for _, value := range values {
			lines.add(header, value)
		}
	}
}

// mocking answers, at the place that its configuration gives it.
func (p *pluginRun) mocking(config json.RawMessage) {
	const name = "mocking"
	var c struct {
		Status  int               `json:"response_status"`
		Body    string            `json:"response_example"`
		Headers map[string]string `json:"response_headers"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	p.d.answer(name, c.Status)
	p.d.Body = resolveTemplate(c.Body, p.vars.lookup)
	for header, value := range c.Headers {
		value = resolveTemplate(value, p.vars.lookup)
		headerLines(p.d.Response).add(header, value)
		if strings.EqualFold(header, "location") {
			p.d.Location = value
		}
	}
}
