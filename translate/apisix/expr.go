package apisix

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Expr is a compiled expression of lua-resty-expr, the language of vars in routes and in plugins.
// It is immutable and safe for concurrent use.
type Expr struct {
	root *exprNode // nil for the empty expression, which always holds
}

// Variables returns the value of a variable: a string, bool, float64, []any, or nil where it does
// not exist.
type Variables func(name string) any

// exprNode is either a logical operation over operands or a comparison.
type exprNode struct {
	logic    string // AND, OR, !AND, !OR; empty in a comparison
	operands []*exprNode
	offset   int // of the operands in the array: 1 behind an operator

	variable string
	negate   bool
	operator string
	value    any
	regex    *pcre
	prefixes []netip.Prefix
	// broken says why the comparison cannot mean what its author wanted, or cannot be evaluated
	// here. APISIX takes such an expression without a word.
	broken error
}

// ParseExpr compiles an expression: [Vars], a [Cond] list or decoded JSON. It refuses what
// lua-resty-expr's compile refuses, and what raises a Lua error in it or at the first request.
// APISIX drops a route or plugin whose expression does not compile, except that the workflow plugin
// takes it for one that always holds. See [Expr.Check] for expressions that compile and cannot
// work.
func ParseExpr(expression any) (*Expr, error) {
	rules, ok := exprList(expression)
	if !ok {
		return nil, fmt.Errorf("expression is %T, not an array", expression)
	}
	if len(rules) == 0 {
		return &Expr{}, nil
	}
	if _, nested := exprList(rules[0]); !nested {
		first, ok := luaString(rules[0])
		if !ok || !isLogic(strings.ToUpper(first)) {
			return nil, errors.New("a single condition must be wrapped in an array of its own")
		}
	}
	root, err := compileNode(rules)
	if err != nil {
		return nil, err
	}
	return &Expr{root}, nil
}

// exprList unwraps the forms in which an array can come.
func exprList(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case Vars:
		return v, true
	case Cond:
		return v, true
	case []string:
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		return list, true
	case []Cond:
		list := make([]any, len(v))
		for i, c := range v {
			list[i] = c
		}
		return list, true
	}
	return nil, false
}

func isLogic(s string) bool { return s == "AND" || s == "OR" || s == "!AND" || s == "!OR" }

func isOperator(s string) bool {
	switch s {
	case "==", "~=", ">", ">=", "<", "<=", "~~", "~*", "in", "has", "ipmatch":
		return true
	}
	return false
}

func compileNode(rules []any) (*exprNode, error) {
	if len(rules) == 0 {
		return nil, errors.New("rule too short: an empty array")
	}
	if _, nested := exprList(rules[0]); nested {
		return compileOperands("AND", rules, 0)
	}
	first, ok := luaString(rules[0])
	if !ok {
		return nil, fmt.Errorf("%s begins with neither a variable nor a logical operator", exprText(rules))
	}
	if logic := strings.ToUpper(first); isLogic(logic) {
		if len(rules) <= 2 {
			return nil, fmt.Errorf("rule too short: %s needs two operands in %s", logic, exprText(rules))
		}
		return compileOperands(logic, rules[1:], 1)
	}
	node, err := compileComparison(rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", exprText(rules), err)
	}
	return node, nil
}

func compileOperands(logic string, rules []any, offset int) (*exprNode, error) {
	node := &exprNode{logic: logic, offset: offset, operands: make([]*exprNode, len(rules))}
	for i, rule := range rules {
		list, ok := exprList(rule)
		if !ok {
			return nil, fmt.Errorf("[%d] is not an array: %s", i+offset, exprText(rule))
		}
		operand, err := compileNode(list)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i+offset, err)
		}
		node.operands[i] = operand
	}
	return node, nil
}

func compileComparison(rule []any) (*exprNode, error) {
	node := &exprNode{}
	variable, ok := rule[0].(string)
	if !ok {
		return nil, errors.New("the variable is not a string, which fails every request")
	}
	node.variable = variable

	rest := rule[1:]
	if len(rule) == 4 {
		if rule[1] != any("!") {
			return nil, errors.New(`bad "not" expression: four elements, and the second is not "!"`)
		}
		node.negate = true
		rest = rule[2:]
	}
	if len(rest) == 0 {
		return nil, errors.New("invalid expression: no operator")
	}
	operator, ok := luaString(rest[0])
	if !ok {
		return nil, errors.New("the operator is not a string")
	}
	node.operator = strings.ToLower(operator)
	switch {
	case len(rest) > 1:
		node.value = normalValue(rest[1])
	case !isOperator(node.operator):
		// [variable, value], an old form, compares with the value in lower case.
		node.value, node.operator = node.operator, "=="
	}
	if !isOperator(node.operator) {
		return nil, fmt.Errorf("invalid operator %q", operator)
	}
	if len(rest) > 2 {
		node.broken = fmt.Errorf("elements behind %s are ignored", exprText(rest[:2]))
	}
	return node, node.compileValue()
}

func (n *exprNode) compileValue() error {
	switch n.operator {
	case "ipmatch":
		return n.compilePrefixes()
	case "~~", "~*":
		pattern, ok := luaString(n.value)
		if !ok {
			n.broken = fmt.Errorf("the regular expression is %s, not a string", exprText(n.value))
			return nil
		}
		re, err := compilePCRE(pattern, n.operator == "~*")
		n.regex = re
		if err != nil {
			n.broken = err
		}
	case "in":
		if _, ok := n.value.([]any); !ok {
			n.broken = errors.New(`the operand of "in" is not an array: it never holds`)
		}
	case ">", ">=", "<", "<=":
		if _, ok := luaNumber(n.value); !ok {
			n.broken = fmt.Errorf("%s is not a number: %q never holds", exprText(n.value), n.operator)
		}
	case "==", "~=":
		switch n.value.(type) {
		case []any, map[string]any:
			n.broken = fmt.Errorf("nothing is equal to %s", exprText(n.value))
		}
	}
	return nil
}

func (n *exprNode) compilePrefixes() error {
	list, ok := n.value.([]any)
	if !ok {
		list = []any{n.value}
	}
	if len(list) == 0 {
		return errors.New("invalid ip address: no address to match")
	}
	for _, element := range list {
		s, ok := element.(string)
		if !ok {
			return fmt.Errorf("invalid ip address: %s", exprText(element))
		}
		prefix, err := parsePrefix(s)
		if err != nil {
			return err
		}
		n.prefixes = append(n.prefixes, prefix)
	}
	return nil
}

// parsePrefix parses an address or a CIDR prefix as lua-resty-ipmatcher does, where an IPv6 address
// may be in brackets.
func parsePrefix(s string) (netip.Prefix, error) {
	host, length, hasLength := strings.Cut(s, "/")
	host = unbracket(host)
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("invalid ip address: %q", s)
	}
	bits := addr.BitLen()
	if hasLength {
		if bits, err = strconv.Atoi(length); err != nil || bits < 0 || bits > addr.BitLen() {
			return netip.Prefix{}, fmt.Errorf("invalid ip address: %q has a bad prefix length", s)
		}
	}
	return addr.Prefix(bits)
}

func unbracket(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// Check returns an error for an expression that compiles in APISIX but cannot work there: a
// malformed regular expression never matches, more than three elements are ignored, and so on. A
// regular expression beyond what can be evaluated here is no error.
func (e *Expr) Check() error {
	if e.root == nil {
		return nil
	}
	return e.root.check()
}

func (n *exprNode) check() error {
	if n.broken != nil && !errors.Is(n.broken, errPCREOnly) {
		return fmt.Errorf("%s: %w", n, n.broken)
	}
	for _, operand := range n.operands {
		if err := operand.check(); err != nil {
			return err
		}
	}
	return nil
}

// Features returns what the conditions need that not every release has.
func (v Vars) Features() []Feature {
	e, err := ParseExpr(v)
	if err != nil {
		return nil
	}
	return e.features()
}

// features returns what the expression needs that not every release has.
func (e *Expr) features() []Feature {
	if e.root == nil {
		return nil
	}
	return e.root.features(nil)
}

func (n *exprNode) features(found []Feature) []Feature {
	if n.operator == "ipmatch" {
		found = append(found, FeatureIPMatch)
	}
	if strings.HasPrefix(n.variable, "proxy_protocol_tlv_") {
		found = append(found, FeatureProxyProtocolTLV)
	}
	for _, operand := range n.operands {
		found = operand.features(found)
	}
	return found
}

// String prints the node as JSON would show it.
func (n *exprNode) String() string {
	if n.logic != "" {
		parts := make([]string, len(n.operands))
		for i, operand := range n.operands {
			parts[i] = operand.String()
		}
		return n.logic + "(" + strings.Join(parts, ", ") + ")"
	}
	negation := ""
	if n.negate {
		negation = "! "
	}
	return n.variable + " " + negation + n.operator + " " + exprText(n.value)
}

// exprText prints a value for an error message.
func exprText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	o, err := Marshal("", "", v)
	if err != nil {
		return fmt.Sprintf("%v", v)
	}
	return string(o.Value)
}
