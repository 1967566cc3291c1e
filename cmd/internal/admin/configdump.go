package admin

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// section is one of the messages that a config dump consists of. Its long lists are made element by
// element, as they are written.
type section struct {
	// message has the fields that are not in lists.
	message proto.Message
	lists   []list
}

// list is a repeated field of a section.
type list struct {
	field    string
	elements iter.Seq[element]
}

// element is an element of a list. It is made only if it is wanted.
type element struct {
	name string
	make func() proto.Message
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// selection is what the query of /config_dump asks for.
type selection struct {
	resource  string         // a list; empty for whole sections
	mask      mask           // nil for everything
	name      *regexp.Regexp // nil for any; matches the whole name
	endpoints bool
}

// errNotFound says that there is no such list.
var errNotFound = errors.New("not found in config dump")

// parseSelection reads the query and checks it against the messages.
func parseSelection(query url.Values, sections []section) (selection, error) {
	q := selection{resource: query.Get("resource"), endpoints: query.Has("include_eds")}
	var err error
	if text := query.Get("name_regex"); text != "" {
		if q.name, err = regexp.Compile(`\A(?:` + text + `)\z`); err != nil {
			return q, fmt.Errorf("name_regex: %w", err)
		}
	}
	if text := query.Get("mask"); text != "" {
		if q.mask, err = parseMask(text); err != nil {
			return q, err
		}
	}
	if q.resource != "" {
		return q, q.checkResource(sections)
	}
	for field, rest := range q.mask {
		known := false
		for _, s := range sections {
			if s.message.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field)) == nil {
				continue
			}
			known = true
			if err := (mask{field: rest}).check(s.message.ProtoReflect().Descriptor()); err != nil {
				return q, err
			}
		}
		if !known {
			return q, fmt.Errorf("mask: no part of a config dump has a field %q", field)
		}
	}
	return q, nil
}

func (q selection) checkResource(sections []section) error {
	for _, s := range sections {
		field := s.message.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(q.resource))
		switch {
		case field == nil:
		case !field.IsList():
			return fmt.Errorf("%s is not a repeated field. Use ?mask=%s to get only this field", q.resource, q.resource)
		default:
			return q.mask.check(field.Message())
		}
	}
	return fmt.Errorf("%s %w", q.resource, errNotFound)
}

func (s *Server) serveConfigDump(w http.ResponseWriter, r *http.Request) {
	sections := s.sections()
	q, err := parseSelection(r.URL.Query(), sections)
	switch {
	case errors.Is(err, errNotFound):
		writeText(w, http.StatusNotFound, err.Error()+"\n")
		return
	case err != nil:
		writeText(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	jsonHeader(w)
	out := &dumpWriter{jsonWriter: jsonWriter{w: w}, selection: q}
	if out.dump(sections); out.err != nil {
		s.config.Logger.WarnContext(r.Context(), "config dump is cut off", slog.Any("error", out.err))
	}
}

// dumpWriter writes the parts that are selected.
type dumpWriter struct {
	jsonWriter

	selection selection
}

func (d *dumpWriter) dump(sections []section) {
	d.text("{\n")
	if d.selection.resource != "" {
		for _, s := range sections {
			for _, l := range s.lists {
				if l.field == d.selection.resource && (d.selection.endpoints || !isEndpoints(s)) {
					d.list("", "configs", 1, d.resources(l))
				}
			}
		}
	} else {
		d.text(" \"configs\": [")
		between := "\n  "
		for _, s := range sections {
			if isEndpoints(s) && !d.selection.endpoints {
				continue
			}
			d.text(between)
			d.section(s)
			between = ",\n  "
		}
		d.text("\n ]")
	}
	d.text("\n}\n")
}

// resources yields the elements of a list as they stand alone, with their type.
func (d *dumpWriter) resources(l list) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for m := range d.selected(l) {
			if d.fail(d.selection.mask.trim(m.ProtoReflect())) {
				return
			}
			if text, err := marshalTyped(m); d.fail(err) || !yield(text) {
				return
			}
		}
	}
}

// selected makes the elements whose names are asked for.
func (d *dumpWriter) selected(l list) iter.Seq[proto.Message] {
	return func(yield func(proto.Message) bool) {
		for e := range l.elements {
			if d.selection.name != nil && !d.selection.name.MatchString(e.name) {
				continue
			}
			if !yield(e.make()) {
				return
			}
		}
	}
}

// section writes a section whose first line is indented already. What the mask leaves nothing of is
// shown by its type alone, as Envoy does.
func (d *dumpWriter) section(s section) {
	message, wanted := s.message, d.selection.mask
	if wanted != nil {
		message = proto.Clone(message)
		wanted = wanted.of(message.ProtoReflect().Descriptor())
		if d.fail(wanted.trim(message.ProtoReflect())) {
			return
		}
	}
	text, err := marshalTyped(message)
	if d.fail(err) {
		return
	}
	d.open(text, 2)
	for _, l := range s.lists {
		if _, masked := wanted[l.field]; wanted == nil || masked {
			d.list(",\n", l.field, 3, d.marshalled(l))
		}
	}
	d.text("\n  }")
}

func (d *dumpWriter) marshalled(l list) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for m := range d.selected(l) {
			if text, err := protoJSON().Marshal(m); d.fail(err) || !yield(text) {
				return
			}
		}
	}
}

// marshalTyped writes a message as it stands in an Any.
func marshalTyped(m proto.Message) ([]byte, error) {
	text, err := protoJSON().Marshal(m)
	if err != nil {
		return nil, err
	}
	typed := fmt.Appendf(nil, `{"@type":%q`, typeURL(m))
	if string(text) == "{}" {
		return append(typed, '}'), nil
	}
	return append(append(typed, ','), text[1:]...), nil
}
