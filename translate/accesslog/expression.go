package accesslog

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Expressions of CEL filter access logs (Telemetry's accessLogging.filter.expression). What is evaluated of the
// language is: attributes (expression_attribute.go), literals of bool, int and string, lists of them, comparisons,
// in, !, &&, ||, parentheses, has(), and the methods startsWith, endsWith, contains and matches of strings. Types
// are checked when an expression is read; one that has more than that is refused as a whole.

// exprType is the type of an expression.
type exprType int

const (
	exprBool exprType = iota
	exprInt
	exprString
	exprList    // of literals
	exprHeaders // a map of strings
)

// exprValue is a value of one of the types. failed is CEL's error, such as an attribute that there is not.
type exprValue struct {
	failed bool
	bool   bool
	int    int64
	string string
}

// expr is an expression that is read.
type expr struct {
	kind exprType
	eval func(*Entry) exprValue
	// list has the elements of an exprList, and of a literal itself; elements is their type. header gives a value
	// of exprHeaders by its name.
	list     []exprValue
	elements exprType
	header   func(name string) func(*Entry) (string, bool)
	// path is that of an attribute; empty for other expressions.
	path string
}

// parseExpression reads an expression; ok is false where it cannot be evaluated. An expression that fails does
// not hold, as in Envoy.
func (p *parser) parseExpression(text string) (holds predicate, ok bool) {
	requests, responses := len(p.request), len(p.response)
	x := &exprParser{parser: p, rest: text}
	x.next()
	e, err := x.or()
	if err != nil || x.token.kind != tokenEnd || e.kind != exprBool {
		p.request, p.response = p.request[:requests], p.response[:responses]
		return nil, false
	}
	return func(entry *Entry) bool {
		value := e.eval(entry)
		return value.bool && !value.failed
	}, true
}

var errExpression = errors.New("beyond what is evaluated")

// maxExpressionDepth bounds the recursion for what others wrote.
const maxExpressionDepth = 100

type exprParser struct {
	*parser
	rest  string
	token token
	depth int
}

func (x *exprParser) accept(text string) bool {
	if x.token.kind != tokenSymbol || x.token.text != text {
		return false
	}
	x.next()
	return true
}

func (x *exprParser) or() (expr, error) { return x.logical("||", x.and, true) }

func (x *exprParser) and() (expr, error) { return x.logical("&&", x.relation, false) }

// logical reads operands of && or ||. One that decides does so whatever fails beside it.
func (x *exprParser) logical(symbol string, operand func() (expr, error), decides bool) (expr, error) {
	first, err := operand()
	if err != nil || x.token.text != symbol || x.token.kind != tokenSymbol {
		return first, err
	}
	all := []expr{first}
	for x.accept(symbol) {
		next, err := operand()
		if err != nil {
			return expr{}, err
		}
		all = append(all, next)
	}
	if slices.ContainsFunc(all, func(e expr) bool { return e.kind != exprBool }) {
		return expr{}, errExpression
	}
	return expr{kind: exprBool, eval: func(e *Entry) exprValue {
		failed := false
		for _, one := range all {
			value := one.eval(e)
			if !value.failed && value.bool == decides {
				return exprValue{bool: decides}
			}
			failed = failed || value.failed
		}
		return exprValue{failed: failed, bool: !decides}
	}}, nil
}

func (x *exprParser) relation() (expr, error) {
	left, err := x.unary()
	if err != nil {
		return expr{}, err
	}
	for {
		operator := x.token.text
		switch {
		case x.token.kind == tokenSymbol && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, operator):
		case x.token.kind == tokenName && operator == "in":
		default:
			return left, nil
		}
		x.next()
		right, err := x.unary()
		if err != nil {
			return expr{}, err
		}
		if left, err = compare(left, operator, right); err != nil {
			return expr{}, err
		}
	}
}

// compare applies a relation.
func compare(left expr, operator string, right expr) (expr, error) {
	if operator == "in" {
		return contained(left, right)
	}
	ordered := operator != "==" && operator != "!="
	if left.kind != right.kind || left.kind > exprString || ordered && left.kind == exprBool {
		return expr{}, errExpression
	}
	return expr{kind: exprBool, eval: func(e *Entry) exprValue {
		a, b := left.eval(e), right.eval(e)
		if a.failed || b.failed {
			return exprValue{failed: true}
		}
		var order int
		switch {
		case left.kind == exprInt && a.int != b.int:
			order = 1
			if a.int < b.int {
				order = -1
			}
		case left.kind == exprString:
			order = strings.Compare(a.string, b.string)
		case a.bool != b.bool:
			order = 1
		}
		switch operator {
		case "==":
			return exprValue{bool: order == 0}
		case "!=":
			return exprValue{bool: order != 0}
		case "<":
			return exprValue{bool: order < 0}
		case "<=":
			return exprValue{bool: order <= 0}
		case ">":
			return exprValue{bool: order > 0}
		}
		return exprValue{bool: order >= 0}
	}}, nil
}

// contained is "element in list", or "name in headers".
func contained(element, container expr) (expr, error) {
	switch {
	case container.kind == exprHeaders && element.kind == exprString && element.path == "" && element.list != nil:
		header := container.header(element.list[0].string)
		return expr{kind: exprBool, eval: func(e *Entry) exprValue {
			_, ok := header(e)
			return exprValue{bool: ok}
		}}, nil
	case container.kind == exprList && (element.kind == container.elements || len(container.list) == 0 && element.kind <= exprString):
		return expr{kind: exprBool, eval: func(e *Entry) exprValue {
			value := element.eval(e)
			return exprValue{failed: value.failed, bool: slices.Contains(container.list, value)}
		}}, nil
	}
	return expr{}, errExpression
}

func (x *exprParser) unary() (expr, error) {
	if x.depth++; x.depth > maxExpressionDepth {
		return expr{}, errExpression
	}
	defer func() { x.depth-- }()
	if !x.accept("!") {
		return x.member()
	}
	operand, err := x.unary()
	if err != nil || operand.kind != exprBool {
		return expr{}, errExpression
	}
	return expr{kind: exprBool, eval: func(e *Entry) exprValue {
		value := operand.eval(e)
		value.bool = !value.bool
		return value
	}}, nil
}

// member reads a value and the methods that are called on it.
func (x *exprParser) member() (expr, error) {
	value, err := x.primary()
	for err == nil {
		switch {
		case x.accept("["):
			value, err = x.index(value)
		case x.accept("."):
			value, err = x.method(value)
		default:
			return value, nil
		}
	}
	return expr{}, err
}

// index is a header by its name.
func (x *exprParser) index(of expr) (expr, error) {
	name := x.token
	x.next()
	if of.kind != exprHeaders || name.kind != tokenString || !x.accept("]") {
		return expr{}, errExpression
	}
	header := of.header(name.text)
	return expr{kind: exprString, eval: func(e *Entry) exprValue {
		value, ok := header(e)
		return exprValue{failed: !ok, string: value}
	}}, nil
}

// method calls a method of strings with a literal.
func (x *exprParser) method(of expr) (expr, error) {
	name := x.token
	x.next()
	if of.kind != exprString || name.kind != tokenName || !x.accept("(") {
		return expr{}, errExpression
	}
	argument := x.token
	x.next()
	if argument.kind != tokenString || !x.accept(")") {
		return expr{}, errExpression
	}
	var test func(s, argument string) bool
	switch name.text {
	case "startsWith":
		test = strings.HasPrefix
	case "endsWith":
		test = strings.HasSuffix
	case "contains":
		test = strings.Contains
	case "matches":
		pattern, err := regexp.Compile(argument.text)
		if err != nil {
			return expr{}, errExpression
		}
		test = func(s, _ string) bool { return pattern.MatchString(s) }
	default:
		return expr{}, errExpression
	}
	return expr{kind: exprBool, eval: func(e *Entry) exprValue {
		value := of.eval(e)
		return exprValue{failed: value.failed, bool: test(value.string, argument.text)}
	}}, nil
}

func (x *exprParser) primary() (expr, error) {
	t := x.token
	x.next()
	switch t.kind {
	case tokenString:
		return literal(exprString, exprValue{string: t.text}), nil
	case tokenInt:
		n, err := strconv.ParseInt(t.text, 0, 64)
		if err != nil {
			return expr{}, errExpression
		}
		return literal(exprInt, exprValue{int: n}), nil
	case tokenName:
		return x.name(t.text)
	case tokenSymbol:
		switch t.text {
		case "(":
			inner, err := x.or()
			if err != nil || !x.accept(")") {
				return expr{}, errExpression
			}
			return inner, nil
		case "[":
			return x.listOfLiterals()
		}
	case tokenEnd, tokenBad:
	}
	return expr{}, errExpression
}

// literal is a value that is written down; its list is that value.
func literal(kind exprType, value exprValue) expr {
	return expr{kind: kind, list: []exprValue{value}, eval: func(*Entry) exprValue { return value }}
}

// listOfLiterals reads a list of literals of one type.
func (x *exprParser) listOfLiterals() (expr, error) {
	out := expr{kind: exprList}
	for !x.accept("]") {
		if len(out.list) > 0 && !x.accept(",") || x.token.kind == tokenSymbol {
			return expr{}, errExpression
		}
		element, err := x.primary()
		if err != nil || len(element.list) != 1 || len(out.list) > 0 && element.kind != out.elements {
			return expr{}, errExpression
		}
		out.list, out.elements = append(out.list, element.list[0]), element.kind
	}
	return out, nil
}

// name reads true, false, has(…) and attributes.
func (x *exprParser) name(name string) (expr, error) {
	switch name {
	case "true", "false":
		return literal(exprBool, exprValue{bool: name == "true"}), nil
	case "has":
		if !x.accept("(") {
			return expr{}, errExpression
		}
		of, err := x.member()
		if err != nil || of.path == "" || of.kind > exprString || !x.accept(")") {
			return expr{}, errExpression
		}
		return expr{kind: exprBool, eval: func(e *Entry) exprValue { return exprValue{bool: !of.eval(e).failed} }}, nil
	}
	// All attributes have two parts; what follows is a method.
	if !x.accept(".") || x.token.kind != tokenName {
		return expr{}, errExpression
	}
	path := name + "." + x.token.text
	x.next()
	out, ok := x.attribute(path)
	if !ok {
		return expr{}, errExpression
	}
	out.path = path
	return out, nil
}
