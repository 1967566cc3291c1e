package authn

import (
	"fmt"
	"slices"

	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/stringmatch"
)

// claimTest is a condition on what is known of the tokens of a request, which is Envoy's dynamic
// metadata of the filter.
type claimTest struct {
	path  []string
	value valueTest
}

// valueTest is a condition on a value, nil of which is absence and meets none.
type valueTest func(v *structpb.Value) bool

func newClaimTest(m *matcherpb.MetadataMatcher) (*claimTest, error) {
	t := &claimTest{}
	for _, segment := range m.GetPath() {
		t.path = append(t.path, segment.GetKey())
	}
	var err error
	t.value, err = newValueTest(m.GetValue())
	return t, err
}

func (t *claimTest) holds(metadata *structpb.Struct) bool {
	value := structpb.NewStructValue(metadata)
	for _, key := range t.path {
		if value = value.GetStructValue().GetFields()[key]; value == nil {
			return false
		}
	}
	return t.value(value)
}

func newValueTest(m *matcherpb.ValueMatcher) (valueTest, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.ValueMatcher_NullMatch_:
		return kindTest(func(*structpb.Value_NullValue) bool { return true }), nil
	case *matcherpb.ValueMatcher_DoubleMatch:
		return kindTest(func(v *structpb.Value_NumberValue) bool {
			if r := p.DoubleMatch.GetRange(); r != nil {
				return v.NumberValue >= r.GetStart() && v.NumberValue < r.GetEnd()
			}
			return v.NumberValue == p.DoubleMatch.GetExact()
		}), nil
	case *matcherpb.ValueMatcher_StringMatch:
		test, err := stringmatch.New(p.StringMatch)
		return kindTest(func(v *structpb.Value_StringValue) bool { return test(v.StringValue) }), err
	case *matcherpb.ValueMatcher_BoolMatch:
		return kindTest(func(v *structpb.Value_BoolValue) bool { return v.BoolValue == p.BoolMatch }), nil
	case *matcherpb.ValueMatcher_PresentMatch:
		return func(*structpb.Value) bool { return p.PresentMatch }, nil
	case *matcherpb.ValueMatcher_ListMatch:
		return newListTest(p.ListMatch)
	case *matcherpb.ValueMatcher_OrMatch:
		return newAnyTest(p.OrMatch.GetValueMatchers())
	}
	return nil, fmt.Errorf("matcher %T of values is not supported", m.GetMatchPattern())
}

// kindTest is a condition on values of one kind.
func kindTest[K any](test func(K) bool) valueTest {
	return func(v *structpb.Value) bool {
		kind, ok := any(v.GetKind()).(K)
		return ok && test(kind)
	}
}

func newListTest(m *matcherpb.ListMatcher) (valueTest, error) {
	one, err := newValueTest(m.GetOneOf())
	if err != nil {
		return nil, err
	}
	return kindTest(func(v *structpb.Value_ListValue) bool {
		return slices.ContainsFunc(v.ListValue.GetValues(), one)
	}), nil
}

func newAnyTest(matchers []*matcherpb.ValueMatcher) (valueTest, error) {
	tests := make([]valueTest, len(matchers))
	for i, m := range matchers {
		var err error
		if tests[i], err = newValueTest(m); err != nil {
			return nil, err
		}
	}
	return func(v *structpb.Value) bool {
		return slices.ContainsFunc(tests, func(test valueTest) bool { return test(v) })
	}, nil
}
