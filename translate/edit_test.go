package translate

import (
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// editor changes messages as bytes tell it. A fuzzer that changes these bytes finds messages that
// Envoy would take; one that changes encoded messages seldom does.
type editor struct {
	script []byte
	// names are strings that occur in resources, so that references may hit.
	names []string
}

// maxEdits bounds the changes to one message.
const maxEdits = 12

// next returns a number below n from the script; 0 at its end.
func (e *editor) next(n int) int {
	if len(e.script) == 0 || n <= 1 {
		return 0
	}
	b := int(e.script[0])
	e.script = e.script[1:]
	if n > math.MaxUint8+1 && len(e.script) > 0 {
		b = b<<8 | int(e.script[0])
		e.script = e.script[1:]
	}
	return b % n
}

// run returns m changed until the script ends, by one change after the other, without those that are
// not valid.
func (e *editor) run(m proto.Message, valid func(proto.Message) bool) proto.Message {
	for range maxEdits {
		if len(e.script) == 0 {
			break
		}
		next := proto.Clone(m)
		e.edit(next.ProtoReflect())
		if valid(next) {
			m = next
		}
	}
	return m
}

// edit makes one change somewhere in m, looking into what is packed.
func (e *editor) edit(m protoreflect.Message) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		e.editPacked(packed)
		return
	}
	var populated []protoreflect.FieldDescriptor
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); m.Has(f) {
			populated = append(populated, f)
		}
	}
	if len(populated) == 0 || e.next(4) == 0 {
		if fields.Len() > 0 && len(e.script) > 0 { // ends what goes on in new messages, too
			e.set(m, fields.Get(e.next(fields.Len())))
		}
		return
	}
	f := populated[e.next(len(populated))]
	switch e.next(8) {
	case 0:
		m.Clear(f)
	case 1:
		e.set(m, f)
	default:
		e.descend(m, f)
	}
}

// descend edits the value of a populated field, if it is a message, and otherwise replaces it.
func (e *editor) descend(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case f.IsMap() && f.MapValue().Message() != nil:
		values := m.Mutable(f).Map()
		keys := sortedKeys(values)
		e.edit(values.Mutable(keys[e.next(len(keys))]).Message())
	case f.IsList() && f.Message() != nil:
		list := m.Mutable(f).List()
		i := e.next(list.Len())
		switch e.next(6) {
		case 0:
			list.Append(protoreflect.ValueOfMessage(proto.Clone(list.Get(i).Message().Interface()).ProtoReflect()))
		case 1:
			last := list.Get(list.Len() - 1)
			list.Set(i, last)
			list.Truncate(list.Len() - 1)
		default:
			e.edit(list.Get(i).Message())
		}
	case f.Message() != nil && !f.IsMap():
		e.edit(m.Mutable(f).Message())
	default:
		e.set(m, f)
	}
}

// set gives a field another value, or one more.
func (e *editor) set(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case f.IsMap():
		values := m.Mutable(f).Map()
		key := e.scalar(f.MapKey()).MapKey()
		if f.MapValue().Message() == nil {
			values.Set(key, e.scalar(f.MapValue()))
			return
		}
		e.edit(values.Mutable(key).Message())
	case f.IsList() && f.Message() != nil:
		e.edit(m.Mutable(f).List().AppendMutable().Message())
	case f.IsList():
		m.Mutable(f).List().Append(e.scalar(f))
	case f.Message() != nil:
		e.edit(m.Mutable(f).Message())
	default:
		m.Set(f, e.scalar(f))
	}
}

func (e *editor) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	numbers := []uint64{0, 1, 2, 7, 50, 100, 404, 503, 10000, 65535, 65536, math.MaxInt32, math.MaxUint32}
	n := numbers[e.next(len(numbers))]
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 1)
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(int(n) % values.Len()).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(min(n, math.MaxInt32)))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n) / 2)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 2)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(e.text()))
	default:
		return protoreflect.ValueOfString(e.text())
	}
}

// text returns a string that means something somewhere, or one that is not meant to.
func (e *editor) text() string {
	words := []string{
		"", "*", "/", "/a", "/a/", "/a*b", "//", "/:x", "/{x}/**", "a", "A.b.", "*.a", "a.*", "a:80", "a:*", "[::1]:80", "::1", "10.1.0.1",
		"(a|b)+", "(", `\1`, `a\.b`, ".*", "(?i)a", "[^/]+", "%", "%REQ(X)%", "%DOWNSTREAM_REMOTE_ADDRESS%", "$", "$host", "${a}", "'", `"`, "\n", "\x00", "é",
		":path", ":authority", ":method", "host", "x-a", "x_a", "cookie", "content-type", "grpc-status", "x-forwarded-client-cert",
		"envoy.filters.http.rbac", "envoy.filters.http.fault", "envoy.filters.http.cors", "envoy.lb", "istio", "principal", strings.Repeat("x", 300),
	}
	i := e.next(len(words) + 256)
	if i < len(words) {
		return words[i]
	}
	if len(e.names) == 0 {
		return ""
	}
	return e.names[(i-len(words))*len(e.names)/256]
}

// editPacked edits what an Any holds. An empty one gets a type first.
func (e *editor) editPacked(packed *anypb.Any) {
	if packed.GetTypeUrl() == "" || e.next(16) == 0 {
		types := []string{
			typeRBAC, typeRBACPerRoute, typeJWT, typeJWTPerRoute, typeExtAuthz, typeExtAuthzRoute, typeCSRF, typeHTTPConnectionManager,
			typeLocalRateLimit, typeZipkin, "envoy.config.route.v3.FilterConfig", "envoy.extensions.filters.http.fault.v3.HTTPFault",
			"envoy.extensions.filters.http.cors.v3.CorsPolicy", "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
			"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "no.such.Type",
		}
		packed.TypeUrl, packed.Value = "type.googleapis.com/"+types[e.next(len(types))], nil
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return
	}
	e.edit(m.ProtoReflect())
	if value, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err == nil {
		packed.Value = value
	}
}

func sortedKeys(m protoreflect.Map) []protoreflect.MapKey {
	var keys []protoreflect.MapKey
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
