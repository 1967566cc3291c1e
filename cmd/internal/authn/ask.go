package authn

import (
	"net/http"
	"strings"

	"meshbridge/translate/apisix"
)

// Ask answers the model of APISIX as ServeHTTP answers APISIX, without counting.
func (h *Handler) Ask(q apisix.AuthRequest) apisix.AuthAnswer {
	e, known := (*h.filters.Load())[q.URI[strings.LastIndexByte(q.URI, '/')+1:]]
	if !known {
		return apisix.AuthAnswer{Status: http.StatusForbidden, Body: unknownConfiguration}
	}
	header := http.Header{}
	for name, value := range q.Headers {
		header.Set(name, value)
	}
	v := e.filter.judge(newRequest(header), h.now())
	out := apisix.AuthAnswer{Status: v.code, Body: v.body, Headers: map[string][]string{}}
	for name, values := range v.header {
		out.Headers[strings.ToLower(name)] = values
	}
	return out
}
