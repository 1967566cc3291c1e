package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// unmarshalJSON decodes a resource. A message inside it whose type is not linked in cannot be
// encoded: it keeps its type URL and loses its content, so that readers of the resource can tell
// what they do not know. Fields that a known type does not have are errors.
func unmarshalJSON(raw json.RawMessage, body *anypb.Any) error {
	if holdsUnknownType(raw) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		var tree any
		if err := dec.Decode(&tree); err != nil {
			return err
		}
		emptyUnknownTypes(tree)
		var err error
		if raw, err = json.Marshal(tree); err != nil {
			return err
		}
	}
	err := protojson.UnmarshalOptions{Resolver: linkedOrEmpty{protoregistry.GlobalTypes}}.Unmarshal(raw, body)
	if err != nil && bytes.Contains(raw, []byte(SecretType)) {
		return errors.New("is no secret in JSON") // the reason would quote what is in it
	}
	return err
}

// holdsUnknownType may err on the side of true, which costs only time.
func holdsUnknownType(raw []byte) bool {
	key := []byte(`"@type"`)
	for {
		i := bytes.Index(raw, key)
		if i < 0 {
			return false
		}
		raw = bytes.TrimLeft(raw[i+len(key):], ": \t\r\n")
		quoted := raw[:1+bytes.IndexByte(raw[min(1, len(raw)):], '"')+1]
		var url string
		if json.Unmarshal(quoted, &url) != nil || !linked(url) {
			return true
		}
	}
}

func linked(url string) bool {
	_, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	return err == nil
}

func emptyUnknownTypes(node any) {
	switch node := node.(type) {
	case []any:
		for _, element := range node {
			emptyUnknownTypes(element)
		}
	case map[string]any:
		url, typed := node["@type"].(string)
		if typed && !linked(url) {
			clear(node)
			node["@type"] = url
			return
		}
		if strings.HasSuffix(url, ".TypedStruct") || strings.HasSuffix(url, "/google.protobuf.Struct") {
			// Its fields are free; an @type in there is data.
			return
		}
		for _, value := range node {
			emptyUnknownTypes(value)
		}
	}
}

// linkedOrEmpty resolves types that are not linked in to messages without fields.
type linkedOrEmpty struct{ *protoregistry.Types }

// FindMessageByURL implements the resolver of protojson.
func (r linkedOrEmpty) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	t, err := r.Types.FindMessageByURL(url)
	if !errors.Is(err, protoregistry.NotFound) {
		return t, err
	}
	name := protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:])
	if !name.IsValid() {
		return nil, fmt.Errorf("type URL %q names no message", url)
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:        new(url),
		Syntax:      new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new(string(name.Name()))}},
	}
	if parent := name.Parent(); parent != "" {
		file.Package = new(string(parent))
	}
	desc, err := protodesc.NewFile(file, nil)
	if err != nil {
		return nil, fmt.Errorf("type URL %q: %w", url, err)
	}
	return dynamicpb.NewMessageType(desc.Messages().Get(0)), nil
}
