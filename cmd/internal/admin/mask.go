package admin

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// mask are the fields of a message that are wanted, each with those of its own message; an empty one,
// as nil, wants all. Within an Any, the fields are those of the message in it.
type mask map[string]mask

// parseMask reads a google.protobuf.FieldMask in its text form: paths, separated by commas.
func parseMask(text string) (mask, error) {
	m := mask{}
	for path := range strings.SplitSeq(text, ",") {
		at := m
		for name := range strings.SplitSeq(path, ".") {
			if name == "" {
				return nil, fmt.Errorf("mask: %q is no path of a field", path)
			}
			if at[name] == nil {
				at[name] = mask{}
			}
			at = at[name]
		}
		clear(at) // the whole field is wanted, whatever else is said of it
	}
	return m, nil
}

// of returns the part that is about fields of a message. It is not nil.
func (k mask) of(message protoreflect.MessageDescriptor) mask {
	own := mask{}
	for name, rest := range k {
		if message.Fields().ByName(protoreflect.Name(name)) != nil {
			own[name] = rest
		}
	}
	return own
}

// check finds fields that there are not. What is in an Any is not known before it is seen.
func (k mask) check(message protoreflect.MessageDescriptor) error {
	if message.FullName() == anyName {
		return nil
	}
	for name, rest := range k {
		field := message.Fields().ByName(protoreflect.Name(name))
		switch {
		case field == nil:
			return fmt.Errorf("mask: %s has no field %q", message.FullName(), name)
		case len(rest) == 0:
		case field.IsList() || field.IsMap():
			return fmt.Errorf("mask: %s.%s is a repeated field, of which no parts can be had; ?resource=%s&mask= masks its elements",
				message.FullName(), name, name)
		case field.Message() == nil:
			return fmt.Errorf("mask: %s.%s is no message", message.FullName(), name)
		default:
			if err := rest.check(field.Message()); err != nil {
				return err
			}
		}
	}
	return nil
}

const anyName = "google.protobuf.Any"

// trim clears the fields that are not wanted; nil wants all. A mask that names no field of the message
// leaves nothing.
func (k mask) trim(m protoreflect.Message) error {
	if k == nil {
		return nil
	}
	if body, ok := m.Interface().(*anypb.Any); ok {
		return k.trimAny(body)
	}
	var errs []error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		rest, wanted := k[string(field.Name())]
		switch {
		case !wanted:
			m.Clear(field)
		case len(rest) > 0 && field.Message() != nil && !field.IsList() && !field.IsMap():
			errs = append(errs, rest.trim(value.Message()))
		}
		return true
	})
	return errors.Join(errs...)
}

func (k mask) trimAny(body *anypb.Any) error {
	m, err := anypb.UnmarshalNew(body, proto.UnmarshalOptions{Resolver: resolver{protoregistry.GlobalTypes}})
	if err != nil {
		return err
	}
	if err := k.trim(m.ProtoReflect()); err != nil {
		return err
	}
	body.Value, err = proto.Marshal(m)
	return err
}
