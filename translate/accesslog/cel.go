package accesslog

// parseExpression reads an expression of CEL (Telemetry's accessLogging.filter.expression); ok is false where
// it has more than can be evaluated.
func (p *parser) parseExpression(string) (holds predicate, ok bool) { return nil, false }
