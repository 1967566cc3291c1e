package extend

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// mergeHeaders adds header operations of a user to the proxy-rewrite or response-rewrite of another one, or of
// the translation. Anything else that the plugin can do, and headers that the other one has a say in, are
// refused: what the mesh removes from requests, a client or a user could forge.
func mergeHeaders(name string, own any, mine map[string]any, owner string) (merged map[string]any, why string) {
	for key := range mine {
		if key != "headers" {
			return nil, fmt.Sprintf("%s has the plugin on this route, and merges headers only, not %s", owner, key)
		}
	}
	theirs, err := asObject(own)
	if err != nil {
		return nil, err.Error()
	}
	additions, err := operationsOf(mine["headers"])
	if err != nil {
		return nil, err.Error()
	}
	present, err := operationsOf(theirs["headers"])
	if err != nil {
		return nil, err.Error()
	}
	taken := map[string]bool{}
	for _, o := range present {
		taken[strings.ToLower(o.header)] = true
	}
	for _, o := range additions {
		if taken[strings.ToLower(o.header)] {
			return nil, fmt.Sprintf("%s decides about header %s on this route", owner, o.header)
		}
	}
	merged = maps.Clone(theirs)
	merged["headers"] = formatOperations(name, slices.Concat(present, additions))
	return merged, ""
}

// headerOperation is an operation on a header. APISIX executes add, set and remove, in this order.
type headerOperation struct {
	operation, header string
	value             any
}

// operationsOf reads headers in each of the forms that APISIX knows: operations, as objects or lists, or
// headers to set.
func operationsOf(headers any) ([]headerOperation, error) {
	if headers == nil {
		return nil, nil
	}
	object, ok := headers.(map[string]any)
	if !ok {
		return nil, errors.New("headers is no object")
	}
	isOperations := false
	for key, value := range object {
		_, isText := value.(string)
		isOperations = isOperations || !isText && slices.Contains(headerOperations, key)
	}
	var out []headerOperation
	if !isOperations {
		for _, header := range slices.Sorted(maps.Keys(object)) {
			out = append(out, headerOperation{"set", header, object[header]})
		}
		return out, nil
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(headerOperations, key) {
			return nil, fmt.Errorf("headers.%s is none of add, set and remove", key)
		}
		switch list := object[key].(type) {
		case map[string]any:
			for _, header := range slices.Sorted(maps.Keys(list)) {
				out = append(out, headerOperation{key, header, list[header]})
			}
		case []any:
			for _, element := range list {
				text, ok := element.(string)
				if !ok {
					return nil, fmt.Errorf("headers.%s has an element that is no text", key)
				}
				header, value, hasValue := strings.Cut(text, ":")
				if hasValue != (key == "add") {
					return nil, fmt.Errorf("headers.%s: %q", key, text)
				}
				out = append(out, headerOperation{key, strings.TrimSpace(header), strings.TrimSpace(value)})
			}
		}
	}
	return out, nil
}

var headerOperations = []string{"add", "set", "remove"}

// formatOperations is the inverse of operationsOf, in the form of the plugin.
func formatOperations(plugin string, operations []headerOperation) map[string]any {
	out := map[string]any{}
	for _, o := range operations {
		list, _ := out[o.operation].([]any)
		object, _ := out[o.operation].(map[string]any)
		switch {
		case o.operation == "remove":
			out["remove"] = append(list, o.header)
		case o.operation == "add" && plugin == pluginResponseRewrite:
			out["add"] = append(list, fmt.Sprintf("%s: %v", o.header, o.value))
		default:
			if object == nil {
				object = map[string]any{}
				out[o.operation] = object
			}
			object[o.header] = o.value
		}
	}
	return out
}
