package admin

import (
	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// redacted is what Envoy shows in place of a secret.
const redacted = "[redacted]"

// redactor replaces what the API marks as sensitive (udpa.annotations.sensitive), in messages within Any,
// too.
type redactor struct {
	sensitive map[protoreflect.FieldDescriptor]bool
}

func newRedactor() *redactor { return &redactor{map[protoreflect.FieldDescriptor]bool{}} }

// body returns a resource's body without secrets: the bytes as received where there are none.
func (r *redactor) body(body *anypb.Any) *anypb.Any {
	shown := &anypb.Any{TypeUrl: body.GetTypeUrl(), Value: body.GetValue()}
	r.any(shown, false)
	return shown
}

// any redacts what is in an Any, and tells whether that changed it. What does not decode is left out: it
// could not be shown.
func (r *redactor) any(body *anypb.Any, all bool) (changed bool) {
	m, err := anypb.UnmarshalNew(body, proto.UnmarshalOptions{Resolver: resolver{protoregistry.GlobalTypes}})
	if err != nil {
		body.Value = nil
		return true
	}
	if !r.message(m.ProtoReflect(), all) {
		return false
	}
	if body.Value, err = proto.Marshal(m); err != nil {
		body.Value = nil
	}
	return true
}

// message redacts a message in place; all is set within a field that is sensitive.
func (r *redactor) message(m protoreflect.Message, all bool) (changed bool) {
	if body, ok := m.Interface().(*anypb.Any); ok {
		return r.any(body, all)
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if r.field(m, field, value, all || r.isSensitive(field)) {
			changed = true
		}
		return true
	})
	return changed
}

func (r *redactor) isSensitive(field protoreflect.FieldDescriptor) bool {
	is, known := r.sensitive[field]
	if !known {
		is, _ = proto.GetExtension(field.Options(), annotations.E_Sensitive).(bool)
		r.sensitive[field] = is
	}
	return is
}

func (r *redactor) field(m protoreflect.Message, field protoreflect.FieldDescriptor, value protoreflect.Value, all bool) (changed bool) {
	switch {
	case all && !field.IsMap() && field.Message() == nil && !isText(field):
		m.Clear(field)
		return true
	case field.IsMap():
		values := value.Map()
		values.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			next, different := r.value(field.MapValue(), v, all)
			if different && field.MapValue().Message() == nil {
				values.Set(key, next)
			}
			changed = changed || different
			return true
		})
	case field.IsList():
		values := value.List()
		for i := range values.Len() {
			next, different := r.value(field, values.Get(i), all)
			if different && field.Message() == nil {
				values.Set(i, next)
			}
			changed = changed || different
		}
	default:
		next, different := r.value(field, value, all)
		if different && field.Message() == nil {
			m.Set(field, next)
		}
		return different
	}
	return changed
}

func isText(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.StringKind || field.Kind() == protoreflect.BytesKind
}

// value returns what to show for a scalar. Messages are redacted in place.
func (r *redactor) value(field protoreflect.FieldDescriptor, value protoreflect.Value, all bool) (next protoreflect.Value, changed bool) {
	switch {
	case field.Message() != nil:
		return value, r.message(value.Message(), all)
	case !all:
		return value, false
	case field.Kind() == protoreflect.StringKind:
		return protoreflect.ValueOfString(redacted), true
	case field.Kind() == protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(redacted)), true
	default:
		return field.Default(), true
	}
}

// Redacted returns the JSON of a resource as the config dump has it: without secrets.
func Redacted(body *anypb.Any) ([]byte, error) { return protoJSON().Marshal(newRedactor().body(body)) }
