package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) //nolint:gosec // it is plain text, which browsers are told not to take for anything else
}

func serveOK(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "OK\n") }

// jsonHeader opens a JSON answer.
func jsonHeader(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, max-age=0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// writeMessage answers with a message in which zeros are spelled out.
func writeMessage(w http.ResponseWriter, m proto.Message) {
	o := protoJSON()
	o.EmitDefaultValues = true
	text, err := o.Marshal(m)
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	jsonHeader(w)
	out := &jsonWriter{w: w}
	out.value(text, 0)
	out.text("\n")
}

// protoJSON is how Envoy writes messages.
func protoJSON() protojson.MarshalOptions {
	return protojson.MarshalOptions{UseProtoNames: true, Resolver: resolver{protoregistry.GlobalTypes}}
}

// resolver finds a type for every type URL. Of a message whose type is not known only the URL is shown.
type resolver struct{ *protoregistry.Types }

// FindMessageByURL implements protojson's Resolver.
func (r resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if known, err := r.Types.FindMessageByURL(url); err == nil {
		return known, nil
	}
	// It has no fields, so everything in the message is unknown to it.
	return (*corepb.AggregatedConfigSource)(nil).ProtoReflect().Type(), nil
}

// jsonWriter writes indented JSON piece by piece, so that a dump of a large mesh is never in memory as a
// whole. It remembers the first error.
type jsonWriter struct {
	w      io.Writer
	buffer bytes.Buffer
	err    error
}

func (j *jsonWriter) text(parts ...string) {
	for _, p := range parts {
		if j.err == nil {
			_, j.err = io.WriteString(j.w, p)
		}
	}
}

// value writes a JSON value whose first line is indented already.
func (j *jsonWriter) value(compact []byte, depth int) {
	if j.err != nil {
		return
	}
	j.buffer.Reset()
	if j.err = json.Indent(&j.buffer, compact, margin(depth), " "); j.err == nil {
		_, j.err = j.w.Write(j.buffer.Bytes())
	}
}

// open writes a JSON object without its closing brace and the line break before it.
func (j *jsonWriter) open(compact []byte, depth int) {
	if j.err != nil {
		return
	}
	j.buffer.Reset()
	if j.err = json.Indent(&j.buffer, compact, margin(depth), " "); j.err == nil {
		_, j.err = j.w.Write(bytes.TrimSuffix(j.buffer.Bytes(), []byte("\n"+margin(depth)+"}")))
	}
}

// fail notes an error, and tells whether there is one.
func (j *jsonWriter) fail(err error) bool {
	if j.err == nil {
		j.err = err
	}
	return j.err != nil
}

func margin(depth int) string { return strings.Repeat(" ", depth) }

// list writes a field that is a list, without the comma after it. An empty one is left out, and false is
// returned.
func (j *jsonWriter) list(before, field string, depth int, values iter.Seq[[]byte]) (written bool) {
	for v := range values {
		if written {
			j.text(",\n")
		} else {
			j.text(before, margin(depth), fmt.Sprintf("%q: [\n", field))
		}
		written = true
		j.text(margin(depth + 1))
		if j.value(v, depth+1); j.err != nil {
			return true
		}
	}
	if written {
		j.text("\n", margin(depth), "]")
	}
	return written
}
