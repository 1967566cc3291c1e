package accesslog

import (
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/stringmatch"
)

// headerFilter holds for requests with a header that matches. Without HTTP there are no headers.
func (p *parser) headerFilter(h *routepb.HeaderMatcher) predicate {
	header := p.requestHeader(strings.ToLower(h.GetName()))
	invert, absentIsEmpty := h.GetInvertMatch(), h.GetTreatMissingHeaderAsEmpty()
	var test func(string) bool
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case nil:
		return func(e *Entry) bool { _, ok := header(e); return ok != invert }
	case *routepb.HeaderMatcher_PresentMatch:
		return func(e *Entry) bool { _, ok := header(e); return (ok == m.PresentMatch) != invert }
	case *routepb.HeaderMatcher_RangeMatch:
		test = func(s string) bool {
			n, err := strconv.ParseInt(s, 10, 64)
			return err == nil && m.RangeMatch.GetStart() <= n && n < m.RangeMatch.GetEnd()
		}
	default:
		var err error
		if test, err = stringmatch.New(stringmatch.OfHeader(h)); err != nil {
			p.problem(partOfFilter)
			return nil
		}
	}
	return func(e *Entry) bool {
		value, ok := header(e)
		return (ok || absentIsEmpty) && test(value) != invert
	}
}
