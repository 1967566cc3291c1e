package translate

import (
	"reflect"
	"slices"

	"meshbridge/translate/apisix"
)

// predicate is a condition that APISIX may not be able to decide exactly. must holds only where the
// condition does, and may wherever it does; of an exact predicate, both are the same. What allows
// access is asked for must and what denies it for may, so that neither is ever more open than Envoy.
type predicate struct{ must, may verdict }

func exactly(v verdict) predicate { return predicate{v, v} }

func constantly(holds bool) predicate { return exactly(verdict{holds: holds}) }

// unknown is the predicate of which nothing is known.
func unknown() predicate { return predicate{verdict{holds: false}, verdict{holds: true}} }

func (p predicate) not() predicate { return predicate{must: p.may.not(), may: p.must.not()} }

// allOf holds where all hold; without any, always.
func allOf(list ...predicate) predicate { return combine(list, conjunction) }

// anyOf holds where one holds; without any, never.
func anyOf(list ...predicate) predicate { return combine(list, disjunction) }

func combine(list []predicate, by func([]verdict) verdict) predicate {
	must, may := make([]verdict, len(list)), make([]verdict, len(list))
	for i, p := range list {
		must[i], may[i] = p.must, p.may
	}
	return predicate{by(must), by(may)}
}

func (v verdict) not() verdict {
	if v.cond == nil {
		return verdict{holds: !v.holds}
	}
	return when(apisix.Not(v.cond))
}

func (v verdict) always() bool { return v.cond == nil && v.holds }
func (v verdict) never() bool  { return v.cond == nil && !v.holds }

func conjunction(list []verdict) verdict { return fold(list, "AND", verdict.never, apisix.And) }

func disjunction(list []verdict) verdict { return fold(list, "OR", verdict.always, apisix.Or) }

// fold combines verdicts. One that decides is the result; constants that do not are left out, as is
// what is there already. Operands of the same operator are taken in.
func fold(list []verdict, operator string, decides func(verdict) bool, by func(...apisix.Cond) apisix.Cond) verdict {
	var conds []apisix.Cond
	add := func(c apisix.Cond) {
		if !slices.ContainsFunc(conds, func(o apisix.Cond) bool { return reflect.DeepEqual(o, c) }) {
			conds = append(conds, c)
		}
	}
	for _, v := range list {
		switch {
		case decides(v):
			return v
		case v.cond == nil:
		case v.cond[0] == any(operator):
			for _, operand := range v.cond[1:] {
				if c, ok := operand.(apisix.Cond); ok {
					add(c)
				}
			}
		default:
			add(v.cond)
		}
	}
	if len(conds) == 0 {
		return verdict{holds: operator == "AND"}
	}
	return when(by(conds...))
}
