package translate

import (
	"net/netip"
	"reflect"

	"meshbridge/translate/accesslog"
)

// sameTable tells whether two parts of capture's tables are equal. Of functions, network policies and
// access logs, the text that they were compiled from counts.
func sameTable[T any](a, b *T) bool {
	return a == b || sameValue(reflect.ValueOf(a), reflect.ValueOf(b))
}

func sameValue(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Func:
		return true // beside its text
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() || a.Pointer() == b.Pointer() {
			return a.Pointer() == b.Pointer()
		}
		if policy, ok := reflect.TypeAssert[*NetworkPolicy](a); ok {
			other, _ := reflect.TypeAssert[*NetworkPolicy](b)
			return policy.text == other.text
		}
		if log, ok := reflect.TypeAssert[*accesslog.Log](a); ok {
			other, _ := reflect.TypeAssert[*accesslog.Log](b)
			return log.Equal(other)
		}
		return sameValue(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !sameValue(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		switch a.Interface().(type) {
		case netip.Addr, netip.AddrPort, netip.Prefix:
			return a.Equal(b)
		}
		for i := range a.NumField() {
			if !sameValue(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	default:
		return a.Equal(b)
	}
}
