package apisix

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func decodeExpr(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// exprVariables are what the tables below evaluate against.
func exprVariables(name string) any {
	return map[string]any{
		"arg_n": "10", "arg_zero": "0", "arg_hex": "0x1F", "arg_flag": true, "arg_spaces": " 7 ",
		"http_x": "bob", "http_empty": "", "http_dot": "a.b", "http_nl": "a\n", "http_utf8": "é",
		"remote_addr": "10.1.2.3", "remote_v6": "2001:db8::1", "server_port": "80",
		"list": []any{"a", "b", float64(1)},
	}[name]
}

func TestExpressionsEvaluateLikeLuaRestyExpr(t *testing.T) {
	for text, want := range map[string]bool{
		`[]`:                                                                true,
		`[["http_x","==","bob"]]`:                                           true,
		`[["http_x","==","BOB"]]`:                                           false,
		`[["http_x","~=","bob"]]`:                                           false,
		`[["http_none","~=","bob"]]`:                                        true,
		`[["http_none","==",null]]`:                                         true,
		`[["http_none","~=",null]]`:                                         false,
		`[["http_empty","~=",null]]`:                                        true, // an empty header is present
		`[["http_empty","==",""]]`:                                          true,
		`[["http_none","==",""]]`:                                           false,
		`[["server_port","==",80]]`:                                         true, // a number converts the variable
		`[["server_port","==","80"]]`:                                       true,
		`[["arg_n","==","10.0"]]`:                                           false, // a string does not
		`[["arg_n","==",1e1]]`:                                              true,
		`[["http_x","==",80]]`:                                              false,
		`[["http_x","~=",80]]`:                                              true,
		`[["http_none","~=",80]]`:                                           true,
		`[["arg_hex","==",31]]`:                                             true,
		`[["arg_spaces","==",7]]`:                                           true,
		`[["arg_n",">",9]]`:                                                 true, // numbers, not text
		`[["arg_n",">","9"]]`:                                               true,
		`[["arg_n",">=",10]]`:                                               true,
		`[["arg_n","<",10]]`:                                                false,
		`[["arg_n","<=",10]]`:                                               true,
		`[["http_x",">",1]]`:                                                false,
		`[["http_none","<",1]]`:                                             false,
		`[["http_x","~~","^b.b$"]]`:                                         true,
		`[["http_x","~~","o"]]`:                                             true, // unanchored
		`[["http_x","~~","B"]]`:                                             false,
		`[["http_x","~*","B"]]`:                                             true,
		`[["http_none","~~",".*"]]`:                                         false,
		`[["http_none","!","~~","x"]]`:                                      true,
		`[["http_empty","~~","^$"]]`:                                        true,
		`[["http_nl","~~","^a$"]]`:                                          true, // $ matches before a final newline
		`[["http_nl","~~","^a\\z"]]`:                                        false,
		`[["http_utf8","~~","^..$"]]`:                                       true, // bytes, not characters
		`[["http_utf8","~*","É"]]`:                                          false,
		`[["http_utf8","~~","\\xc3\\xa9"]]`:                                 true,
		`[["http_dot","~~","^\\Qa.b\\E$"]]`:                                 true,
		`[["arg_flag","~~","^true$"]]`:                                      true,
		`[["arg_flag","==",""]]`:                                            false,
		`[["arg_flag","~=",null]]`:                                          true,
		`[["http_x","in",["al","bob"]]]`:                                    true,
		`[["http_x","IN",["al","bob"]]]`:                                    true,  // operators in any case
		`[["server_port","in",[80]]]`:                                       false, // types differ
		`[["http_x","!","in",["al"]]]`:                                      true,
		`[["http_none","in",["al"]]]`:                                       false,
		`[["http_x","in","bob"]]`:                                           false,
		`[["list","has","a"]]`:                                              true,
		`[["list","has",1]]`:                                                true,
		`[["list","has","1"]]`:                                              false,
		`[["http_x","has","bob"]]`:                                          false,
		`[["remote_addr","ipmatch","10.0.0.0/8"]]`:                          true,
		`[["remote_addr","ipmatch",["10.1.2.4","10.1.2.3"]]]`:               true,
		`[["remote_addr","!","ipmatch",["10.0.0.0/8"]]]`:                    false,
		`[["remote_v6","ipmatch",["2001:db8::/32"]]]`:                       true,
		`[["remote_v6","ipmatch",["10.0.0.0/8"]]]`:                          false,
		`[["http_x","ipmatch",["0.0.0.0/0"]]]`:                              false,
		`[["http_none","!","ipmatch",["0.0.0.0/0"]]]`:                       true,
		`[["http_x","bob"]]`:                                                true, // the old form of two elements
		`[["http_x","BOB"]]`:                                                true, // which folds the value
		`[["http_none","=="]]`:                                              true,
		`["OR",["http_x","==","a"],["http_x","==","bob"]]`:                  true,
		`["or",["http_x","==","a"],["http_x","==","bob"]]`:                  true,
		`["!OR",["http_x","==","a"],["http_x","==","b"]]`:                   true,
		`["AND",["http_x","==","a"],["http_x","==","bob"]]`:                 false,
		`["!AND",["http_x","==","a"],["http_x","==","bob"]]`:                true,
		`[["http_x","==","bob"],["OR",["arg_n","==",1],["arg_n","==",10]]]`: true,
		`[[["http_x","==","bob"],["arg_n","==","10"]]]`:                     true,
		`[["http_x","==",["bob"]]]`:                                         false,
		`[["http_x","~=",["bob"]]]`:                                         true,
	} {
		e, err := ParseExpr(decodeExpr(t, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := e.Eval(exprVariables)
		if got != want || err != nil {
			t.Errorf("%s = %v, %v; want %v", text, got, err, want)
		}
	}
}

// The workflow plugin takes an expression that does not compile for one that always holds.
func TestBrokenExpressionsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                     "not an array",
		`"x"`:                                    "not an array",
		`["http_x","==","bob"]`:                  "wrapped",
		`[[]]`:                                   "too short",
		`["OR",["http_x","==","a"]]`:             "two operands",
		`["!OR",["http_x","==","a"]]`:            "two operands",
		`[["OR"]]`:                               "two operands",
		`[["http_x"]]`:                           "no operator",
		`[["http_x","=~","a"]]`:                  "invalid operator",
		`[["http_x","not","==","a"]]`:            "not",
		`[["http_x","==","a"],"AND"]`:            "not an array",
		`[["http_x","==","a"],null]`:             "not an array",
		`[[5,"==","a"]]`:                         "not a string",
		`[[null,"==","a"]]`:                      "neither",
		`[["http_x",null,"a"]]`:                  "operator",
		`[["http_x","ipmatch","10.0.0.0/33"]]`:   "prefix length",
		`[["http_x","ipmatch","x"]]`:             "invalid ip",
		`[["http_x","ipmatch",[]]]`:              "invalid ip",
		`[["http_x","ipmatch"]]`:                 "invalid ip",
		`[["http_x","ipmatch",[["10.0.0.1"]]]]`:  "invalid ip",
		`[["AND",["a","==","b"],["c","?","d"]]]`: "[0]: [2]",
	} {
		_, err := ParseExpr(decodeExpr(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", text, err, want)
		}
	}
}

func TestExpressionsThatCannotWorkAreFound(t *testing.T) {
	for _, text := range []string{
		`[["http_x","~~","("]]`,
		`["OR",["http_x","==","a"],["http_x","~~","[z-a]"]]`,
		`[["http_x","~~",null]]`,
		`[["http_x","in","a"]]`,
		`[["http_x",">","a"]]`,
		`[["http_x","==",["a"]]]`,
		`[["http_x","==","a","b","c"]]`,
	} {
		e, err := ParseExpr(decodeExpr(t, text))
		if err != nil {
			t.Errorf("%s does not compile: %v", text, err)
			continue
		}
		if err := e.Check(); err == nil || !strings.Contains(err.Error(), "http_x") {
			t.Errorf("%s: error %v, want one that names the variable", text, err)
		}
	}
}

func TestPCREOnlySyntaxIsReportedWhenEvaluated(t *testing.T) {
	for _, pattern := range []string{`(?=a)`, `(a)\1`, `a++`, `(?>a)`, `a$b`, `\Gx`, `(?<!a)b`, `(*UTF)a`} {
		e, err := ParseExpr(List(Match("http_x", pattern)))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		if err := e.Check(); err != nil {
			t.Errorf("%s: Check: %v", pattern, err)
		}
		if _, err := e.Eval(exprVariables); !errors.Is(err, errPCREOnly) {
			t.Errorf("%s: Eval: %v", pattern, err)
		}
	}
}

func TestConditionBuilders(t *testing.T) {
	for name, test := range map[string]struct {
		cond Cond
		want string
		ok   bool
	}{
		"Eq":            {Eq("http_x", "bob"), `["http_x","==","bob"]`, true},
		"NotEq missing": {NotEq("http_none", "bob"), `["http_none","~=","bob"]`, true},
		"Match":         {Match("http_x", "^b"), `["http_x","~~","^b"]`, true},
		"NotMatch":      {NotMatch("http_x", "^b"), `["http_x","!","~~","^b"]`, false},
		"MatchFold":     {MatchFold("http_x", "^B"), `["http_x","~*","^B"]`, true},
		"NotMatchFold":  {NotMatchFold("http_x", "^B"), `["http_x","!","~*","^B"]`, false},
		"Present":       {Present("http_empty"), `["http_empty","~=",null]`, true},
		"Absent":        {Absent("http_none"), `["http_none","==",null]`, true},
		"In":            {In("http_x", "al", "bob"), `["http_x","in",["al","bob"]]`, true},
		"In nothing":    {In("http_x"), `["http_x","in",[]]`, false},
		"NotIn":         {NotIn("http_x", "al"), `["http_x","!","in",["al"]]`, true},
		"IPMatch":       {IPMatch("remote_addr", "10.0.0.0/8"), `["remote_addr","ipmatch",["10.0.0.0/8"]]`, true},
		"NotIPMatch":    {NotIPMatch("remote_addr", "10.0.0.0/8"), `["remote_addr","!","ipmatch",["10.0.0.0/8"]]`, false},
		"And":           {And(Eq("a", "b"), Eq("c", "d")), `["AND",["a","==","b"],["c","==","d"]]`, false},
		"And of one":    {And(Eq("a", "b")), `["a","==","b"]`, false},
		"And of none":   {And(), `["request_method","~=",null]`, false},
		"Or":            {Or(Eq("a", "b"), Eq("http_x", "bob")), `["OR",["a","==","b"],["http_x","==","bob"]]`, true},
		"Or of none":    {Or(), `["request_method","==",null]`, true},
		"Not":           {Not(Eq("http_x", "bob")), `["http_x","!","==","bob"]`, false},
		"Not of Not":    {Not(Not(Eq("http_x", "bob"))), `["http_x","==","bob"]`, true},
		"Not of And":    {Not(And(Eq("a", "b"), Eq("c", "d"))), `["!AND",["a","==","b"],["c","==","d"]]`, true},
		"Not of Not Or": {Not(Not(Or(Eq("a", "b"), Eq("c", "d")))), `["OR",["a","==","b"],["c","==","d"]]`, false},
		"InRange":       {InRange("arg_n", 10, 11), `["AND",["arg_n","~~","\\A[+-]?[0-9]+\\z"],["arg_n",">=",10],["arg_n","<",11]]`, true},
		"InRange of 0x": {InRange("arg_hex", 0, 100), `["AND",["arg_hex","~~","\\A[+-]?[0-9]+\\z"],["arg_hex",">=",0],["arg_hex","<",100]]`, false},
	} {
		o, err := Marshal("", "", test.cond)
		if err != nil || string(o.Value) != test.want {
			t.Errorf("%s: got %s, %v; want %s", name, o.Value, err, test.want)
		}
		e, err := ParseExpr(List(test.cond))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := e.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ok, err := e.Eval(exprVariables); ok != test.ok || err != nil {
			t.Errorf("%s holds: %v, %v; want %v", name, ok, err, test.ok)
		}
	}
}

// drawCond draws a condition from the builders.
func drawCond(t *rapid.T, depth int) Cond {
	variable := rapid.SampledFrom([]string{"http_x", "http_none", "http_empty", "arg_n", "remote_addr"}).Draw(t, "variable")
	if depth > 0 && rapid.Bool().Draw(t, "nested") {
		operands := make([]Cond, rapid.IntRange(0, 3).Draw(t, "operands"))
		for i := range operands {
			operands[i] = drawCond(t, depth-1)
		}
		switch rapid.IntRange(0, 2).Draw(t, "logic") {
		case 0:
			return And(operands...)
		case 1:
			return Or(operands...)
		default:
			return Not(Or(operands...))
		}
	}
	switch rapid.IntRange(0, 6).Draw(t, "operator") {
	case 0:
		return Eq(variable, "bob")
	case 1:
		return NotMatch(variable, "^[0-9]")
	case 2:
		return Present(variable)
	case 3:
		return In(variable, "bob", "10")
	case 4:
		return NotIPMatch(variable, "10.0.0.0/8")
	case 5:
		return InRange(variable, 5, 20)
	default:
		return MatchFold(variable, "B")
	}
}

func TestBuiltConditionsCompileAndNegate(t *testing.T) {
	eval := func(t *rapid.T, c Cond) bool {
		e, err := ParseExpr(List(c))
		if err != nil || e.Check() != nil {
			t.Fatalf("%v: %v, %v", c, err, e.Check())
		}
		ok, err := e.Eval(exprVariables)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	rapid.Check(t, func(t *rapid.T) {
		c, d := drawCond(t, 3), drawCond(t, 3)
		a, b := eval(t, c), eval(t, d)
		if eval(t, Not(c)) == a || eval(t, And(c, d)) != (a && b) || eval(t, Or(c, d)) != (a || b) {
			t.Fatalf("%v is %v, %v is %v, and combined they are not what they should be", c, a, d, b)
		}
	})
}

func FuzzExpr(f *testing.F) {
	for _, seed := range []string{
		`[["http_x","==","bob"]]`, `["!OR",["a","in",[1,"b",null]],["b","!","~~","^\\Qx\\E$"]]`,
		`[["remote_addr","ipmatch",["::1/64","10.0.0.0/8"]]]`, `[["a","~*","[[:alpha:]\\s\\x{ff}]+(?i:b)$"]]`,
		`[[1,2],{"a":1},null,true]`, `[["arg_n",">","0x1p-3"]]`, `[["http_x","~~","\\Q"]]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		e, err := ParseExpr(v)
		if err != nil {
			return
		}
		_ = e.Check()
		first, err := e.Eval(exprVariables)
		second, err2 := e.Eval(exprVariables)
		if first != second || (err == nil) != (err2 == nil) {
			t.Errorf("%s is not deterministic", text)
		}
		if ok, err := e.Eval(exprVariables); err == nil && !ok {
			if reason := e.explain(exprVariables); !strings.HasPrefix(reason, "vars") {
				t.Errorf("%s: reason %q", text, reason)
			}
		}
	})
}
