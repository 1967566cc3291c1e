package apisix

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Eval tells whether the expression holds. The error is of a regular expression that PCRE may
// understand and Go does not; the result is then that of a comparison that does not match.
func (e *Expr) Eval(vars Variables) (bool, error) {
	if e.root == nil {
		return true, nil
	}
	run := exprRun{vars: vars}
	ok := run.eval(e.root)
	return ok, run.err
}

// exprRun is one evaluation.
type exprRun struct {
	vars Variables
	err  error
}

func (r *exprRun) eval(n *exprNode) bool {
	switch n.logic {
	case "AND":
		return r.all(n)
	case "!AND":
		return !r.all(n)
	case "OR":
		return r.some(n)
	case "!OR":
		return !r.some(n)
	}
	if r.err == nil && errors.Is(n.broken, errPCREOnly) {
		r.err = n.broken
	}
	return n.compare(r.vars(n.variable)) != n.negate
}

func (r *exprRun) all(n *exprNode) bool {
	return !slices.ContainsFunc(n.operands, func(o *exprNode) bool { return !r.eval(o) })
}

func (r *exprRun) some(n *exprNode) bool { return slices.ContainsFunc(n.operands, r.eval) }

// compare is lua-resty-expr's compare_val: null is absence, and only a numeric operand converts the
// variable to a number.
func (n *exprNode) compare(left any) bool {
	switch n.operator {
	case "==", "~=":
		return n.equal(left) == (n.operator == "==")
	case ">", ">=", "<", "<=":
		return n.order(left)
	case "~~", "~*":
		subject, ok := luaString(left)
		if b, isBool := left.(bool); isBool {
			subject, ok = strconv.FormatBool(b), b // false is taken for a missing variable
		}
		return ok && n.regex != nil && n.regex.match(subject)
	case "in":
		list, _ := n.value.([]any)
		return left != nil && slices.ContainsFunc(list, func(v any) bool { return sameScalar(left, v) })
	case "has":
		list, _ := left.([]any)
		return n.value != nil && slices.ContainsFunc(list, func(v any) bool { return sameScalar(v, n.value) })
	case "ipmatch":
		s, _ := left.(string)
		return matchPrefixes(n.prefixes, s)
	}
	return false
}

func (n *exprNode) equal(left any) bool {
	if right, ok := n.value.(float64); ok {
		number, ok := luaNumber(left)
		return ok && number == right
	}
	if left == nil || n.value == nil {
		return left == nil && n.value == nil
	}
	return sameScalar(left, n.value)
}

func (n *exprNode) order(left any) bool {
	a, ok := luaNumber(left)
	b, ok2 := luaNumber(n.value)
	if !ok || !ok2 {
		return false
	}
	switch n.operator {
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "<":
		return a < b
	default:
		return a <= b
	}
}

func matchPrefixes(prefixes []netip.Prefix, s string) bool {
	addr, err := netip.ParseAddr(unbracket(s))
	if err != nil || addr.Zone() != "" {
		return false
	}
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// sameScalar is Lua's ==: values of different types differ, and tables are equal to nothing.
func sameScalar(a, b any) bool {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && a == b
	case float64:
		b, ok := b.(float64)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	}
	return false
}

// explain says which part of an expression does not hold.
func (e *Expr) explain(vars Variables) string {
	node := e.root
	path := []byte("vars")
	for node.logic == "AND" {
		failed := slices.IndexFunc(node.operands, func(o *exprNode) bool {
			run := exprRun{vars: vars}
			return !run.eval(o)
		})
		path = fmt.Appendf(path, "[%d]", failed+node.offset)
		node = node.operands[failed]
	}
	if node.logic != "" {
		return string(path) + " " + node.String() + ": does not hold"
	}
	value := vars(node.variable)
	if value == nil {
		return string(path) + " " + node.String() + ": is absent"
	}
	return string(path) + " " + node.String() + ": is " + strconv.Quote(exprText(value))
}
