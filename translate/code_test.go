package translate

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestEveryCodeIsExplained(t *testing.T) {
	last := Code("")
	for _, info := range Codes() {
		if info.Code <= last {
			t.Errorf("%s does not follow %s: codes are unique and sorted", info.Code, last)
		}
		last = info.Code
		if info.Summary == "" || !strings.HasSuffix(info.Explanation, ".") {
			t.Errorf("%s: summary %q, explanation %q", info.Code, info.Summary, info.Explanation)
		}
		switch info.Severity {
		case SeverityError, SeverityWarning, SeverityInfo:
		default:
			t.Errorf("%s has severity %q", info.Code, info.Severity)
		}
	}
}

// Codes that are reported by name in the source exist, with as many arguments as their summary has
// verbs.
func TestReportedCodesExist(t *testing.T) {
	codes := newCatalogue()
	call := regexp.MustCompile(`\b(?:report|share|diagnosticFor|rx\.report|cx\.report)\("([a-z0-9_]+)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(source), -1) {
			if _, ok := codes[Code(m[1])]; !ok {
				t.Errorf("%s reports %s, which is no code", file, m[1])
			}
		}
	}
}

// No diagnostic of a recording has a message that misses arguments.
func TestMessagesAreComplete(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			for _, d := range translated(t, sc.with(p), sc.snapshot).Diagnostics() {
				if d.Message == "" || strings.Contains(d.Message, "%!") || d.Severity == "" || d.Resource == "" {
					t.Errorf("%s/%s: %+v", sc.name, p.Name(), d)
				}
			}
		}
	}
}

// Fields that are listed as understood exist, and every other field is reported when it is set.
func TestFieldsThatAreNotUnderstoodAreReported(t *testing.T) {
	for _, m := range []proto.Message{
		&listenerpb.Listener{}, &listenerpb.FilterChain{}, &listenerpb.FilterChainMatch{},
		&http_connection_managerpb.HttpConnectionManager{}, &routepb.RouteConfiguration{}, &routepb.RouteMatch{},
	} {
		d := m.ProtoReflect().Descriptor()
		known := map[string]bool{}
		for _, name := range understood(d.FullName()) {
			known[name] = true
			if d.Fields().ByName(protoreflect.Name(name)) == nil {
				t.Errorf("%s has no field %s", d.FullName(), name)
			}
		}
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			set := m.ProtoReflect().New()
			switch {
			case f.IsList():
				list := set.Mutable(f).List()
				list.Append(list.NewElement())
			case f.IsMap():
				continue // none here is without a handler
			case f.Message() != nil:
				set.Set(f, set.NewField(f))
			default:
				set.Set(f, nonZero(f))
			}
			var reported []string
			reportUnknown(set.Interface(), func(_ Code, field string, _ ...any) { reported = append(reported, field) }, "")
			if got := len(reported) == 1; got == known[string(f.Name())] {
				t.Errorf("%s.%s: understood %t, reported %v", d.FullName(), f.Name(), known[string(f.Name())], reported)
			}
		}
	}
}

func nonZero(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	default:
		panic("no value for " + f.Kind().String())
	}
}
