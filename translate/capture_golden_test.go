package translate

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"meshbridge/translate/accesslog"
)

// renderCapture is capture's table as people review it: what is empty is left out.
func renderCapture(tb testing.TB, s *State) []byte {
	tb.Helper()
	doc := map[string]any{}
	var listeners, overlay []any
	for _, l := range s.Listeners() {
		listeners = append(listeners, showTable(reflect.ValueOf(l)))
	}
	for _, e := range s.Overlay() {
		overlay = append(overlay, showTable(reflect.ValueOf(e)))
	}
	if len(listeners) > 0 {
		doc["listeners"] = listeners
	}
	if len(overlay) > 0 {
		doc["overlay"] = overlay
	}
	return encodeYAML(tb, doc)
}

// showTable turns a value into what YAML can show.
func showTable(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if policy, ok := reflect.TypeAssert[*NetworkPolicy](v); ok {
			return showPolicy(policy)
		}
		if log, ok := reflect.TypeAssert[*accesslog.Log](v); ok {
			return log.String()
		}
		return showTable(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%d bytes", v.Len())
		}
		var out []any
		for i := range v.Len() {
			out = append(out, showTable(v.Index(i)))
		}
		return out
	case reflect.Struct:
		switch value := v.Interface().(type) {
		case netip.Addr, netip.AddrPort, netip.Prefix:
			return fmt.Sprint(value)
		case PortRange:
			return fmt.Sprintf("%d-%d", value.First, value.Last)
		case SANMatch:
			return strings.TrimSpace([]string{"", "DNS", "URI", "email", "IP"}[value.Kind] + " " + value.Text)
		}
		out := map[string]any{}
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !v.Field(i).IsZero() {
				out[strings.ToLower(field.Name[:1])+field.Name[1:]] = showTable(v.Field(i))
			}
		}
		return out
	case reflect.Int64:
		if d, ok := reflect.TypeAssert[time.Duration](v); ok {
			return d.String()
		}
	default:
	}
	return v.Interface()
}

func showPolicy(p *NetworkPolicy) any {
	out := []string{"allow"}
	if p.denies {
		out[0] = "deny"
	}
	for _, named := range p.policies {
		out = append(out, named.name)
	}
	return strings.Join(out, " ")
}
