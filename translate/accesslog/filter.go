package accesslog

import (
	"slices"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	celfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
)

// partOfFilter is the problem of a filter that is not read.
const partOfFilter = "a part of its filter"

// predicate decides about entries; nil holds for all.
type predicate func(*Entry) bool

// parseFilter reads a filter. Where it cannot be evaluated, what stands in its place lets more pass, and that is
// reported.
func (p *parser) parseFilter(f *accesslogpb.AccessLogFilter) predicate {
	switch s := f.GetFilterSpecifier().(type) {
	case *accesslogpb.AccessLogFilter_StatusCodeFilter:
		return p.comparison(s.StatusCodeFilter.GetComparison(), func(e *Entry) int64 { return int64(e.http().Status) })
	case *accesslogpb.AccessLogFilter_DurationFilter:
		return p.comparison(s.DurationFilter.GetComparison(), func(e *Entry) int64 { return e.Duration.Milliseconds() })
	case *accesslogpb.AccessLogFilter_NotHealthCheckFilter:
		return nil // no request is answered by a filter for health checks
	case *accesslogpb.AccessLogFilter_AndFilter:
		return p.allOf(s.AndFilter.GetFilters())
	case *accesslogpb.AccessLogFilter_OrFilter:
		return p.anyOf(s.OrFilter.GetFilters())
	case *accesslogpb.AccessLogFilter_HeaderFilter:
		return p.headerFilter(s.HeaderFilter.GetHeader())
	case *accesslogpb.AccessLogFilter_ResponseFlagFilter:
		flags := s.ResponseFlagFilter.GetFlags()
		if len(flags) == 0 {
			return func(e *Entry) bool { return e.Flags != "" }
		}
		return func(e *Entry) bool { return slices.ContainsFunc(flags, e.hasFlag) }
	case *accesslogpb.AccessLogFilter_GrpcStatusFilter:
		var codes []int64
		for _, status := range s.GrpcStatusFilter.GetStatuses() {
			codes = append(codes, int64(status))
		}
		exclude := s.GrpcStatusFilter.GetExclude()
		return func(e *Entry) bool { return slices.Contains(codes, e.grpcCode()) != exclude }
	case *accesslogpb.AccessLogFilter_LogTypeFilter:
		types, exclude := s.LogTypeFilter.GetTypes(), s.LogTypeFilter.GetExclude()
		return func(e *Entry) bool { return slices.Contains(types, e.logType()) != exclude }
	case *accesslogpb.AccessLogFilter_ExtensionFilter:
		c := new(celfilterpb.ExpressionFilter)
		if s.ExtensionFilter.GetTypedConfig().UnmarshalTo(c) == nil {
			if holds, ok := p.parseExpression(c.GetExpression()); ok {
				return holds
			}
		}
	}
	p.problem(partOfFilter) // by sampling of the runtime or of traces, by metadata
	return nil
}

func (p *parser) comparison(c *accesslogpb.ComparisonFilter, of func(*Entry) int64) predicate {
	value := int64(c.GetValue().GetDefaultValue())
	switch c.GetOp() {
	case accesslogpb.ComparisonFilter_EQ:
		return func(e *Entry) bool { return of(e) == value }
	case accesslogpb.ComparisonFilter_GE:
		return func(e *Entry) bool { return of(e) >= value }
	case accesslogpb.ComparisonFilter_LE:
		return func(e *Entry) bool { return of(e) <= value }
	case accesslogpb.ComparisonFilter_NE:
		return func(e *Entry) bool { return of(e) != value }
	}
	p.problem(partOfFilter)
	return nil
}

func (p *parser) allOf(filters []*accesslogpb.AccessLogFilter) predicate {
	var all []predicate
	for _, f := range filters {
		if holds := p.parseFilter(f); holds != nil {
			all = append(all, holds)
		}
	}
	return func(e *Entry) bool {
		return !slices.ContainsFunc(all, func(holds predicate) bool { return !holds(e) })
	}
}

func (p *parser) anyOf(filters []*accesslogpb.AccessLogFilter) predicate {
	var some []predicate
	always := false
	for _, f := range filters { // also those after one that always holds: what is wrong with them is reported
		holds := p.parseFilter(f)
		always = always || holds == nil
		some = append(some, holds)
	}
	if always {
		return nil
	}
	return func(e *Entry) bool {
		return slices.ContainsFunc(some, func(holds predicate) bool { return holds(e) })
	}
}
