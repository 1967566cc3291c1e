package apisix

import "slices"

// Cond is one condition of [Vars], in lua-resty-expr's form: [variable, operator, value],
// [variable, "!", operator, value], or [logic, operand, operand, …] where logic is AND, OR, !AND
// or !OR. Build one with the functions below; they keep to forms that lua-resty-expr compiles.
type Cond []any

// Eq holds when the variable is equal to value. A missing variable is not equal to anything.
func Eq(variable, value string) Cond { return Cond{variable, "==", value} }

// NotEq holds when the variable is missing or differs from value.
func NotEq(variable, value string) Cond { return Cond{variable, "~=", value} }

// Match holds when the variable is present and the PCRE matches anywhere in it. Quote literals with
// [QuoteRegex], and anchor with \A and \z: in PCRE, $ also matches before a final newline.
func Match(variable, pcre string) Cond { return Cond{variable, "~~", pcre} }

// NotMatch holds when the variable is missing or the PCRE does not match.
func NotMatch(variable, pcre string) Cond { return Cond{variable, "!", "~~", pcre} }

// MatchFold is Match without regard to the case of ASCII letters.
func MatchFold(variable, pcre string) Cond { return Cond{variable, "~*", pcre} }

// NotMatchFold is NotMatch without regard to the case of ASCII letters.
func NotMatchFold(variable, pcre string) Cond { return Cond{variable, "!", "~*", pcre} }

// Present holds when the variable exists, even with an empty value.
func Present(variable string) Cond { return Cond{variable, "~=", nil} }

// Absent holds when the variable does not exist.
func Absent(variable string) Cond { return Cond{variable, "==", nil} }

// In holds when the variable is equal to one of the values.
func In(variable string, values ...string) Cond { return Cond{variable, "in", array(values)} }

// NotIn holds when the variable is missing or equal to none of the values.
func NotIn(variable string, values ...string) Cond {
	return Cond{variable, "!", "in", array(values)}
}

// IPMatch holds when the variable is an address within one of the addresses or CIDR prefixes, of
// which there must be at least one.
func IPMatch(variable string, prefixes ...string) Cond {
	return Cond{variable, "ipmatch", array(prefixes)}
}

// NotIPMatch holds when the variable is missing, no address, or within none of the prefixes.
func NotIPMatch(variable string, prefixes ...string) Cond {
	return Cond{variable, "!", "ipmatch", array(prefixes)}
}

// InRange holds when the variable is a decimal integer with start <= variable < end. The bounds
// lose precision beyond 2^53, as every number in APISIX does.
func InRange(variable string, start, end int64) Cond {
	// The expression: Lua's number conversion takes "0x10" and " 1e3 " as well.
	return And(Match(variable, `\A[+-]?[0-9]+\z`), Cond{variable, ">=", start}, Cond{variable, "<", end})
}

// Always holds for every request.
func Always() Cond { return Present("request_method") }

// Never holds for no request.
func Never() Cond { return Absent("request_method") }

// And holds when all conditions hold; without any, always.
func And(conds ...Cond) Cond { return logic("AND", Always(), conds) }

// Or holds when one of the conditions holds; without any, never.
func Or(conds ...Cond) Cond { return logic("OR", Never(), conds) }

// logic leaves out the operator where there is one operand: lua-resty-expr refuses fewer than two.
func logic(operator string, empty Cond, conds []Cond) Cond {
	switch len(conds) {
	case 0:
		return empty
	case 1:
		return conds[0]
	}
	c := make(Cond, 1, len(conds)+1)
	c[0] = operator
	for _, operand := range conds {
		c = append(c, operand)
	}
	return c
}

// Not holds when the condition does not.
func Not(c Cond) Cond {
	if len(c) == 0 {
		return Never()
	}
	first, _ := c[0].(string)
	negated := map[string]string{"AND": "!AND", "OR": "!OR", "!AND": "AND", "!OR": "OR"}[first]
	switch {
	case negated != "":
		c = slices.Clone(c)
		c[0] = negated
		return c
	case len(c) == 4: // [variable, "!", operator, value]
		return Cond{c[0], c[2], c[3]}
	}
	return slices.Insert(slices.Clone(c), 1, any("!"))
}

// List returns the conditions as Vars, all of which must hold.
func List(conds ...Cond) Vars {
	vars := make(Vars, len(conds))
	for i, c := range conds {
		vars[i] = c
	}
	return vars
}

// array copies values to a JSON array that is [] and not null without any.
func array(values []string) []string { return append([]string{}, values...) }
