package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxJSONDepth bounds the nesting of a request. A transaction that is nested as deep as
// defaultTxnOps allows needs two or three messages for each level.
const maxJSONDepth = 4 * defaultTxnOps

// requestDecoding is lenient as etcd's: names in snake or lower camel case, 64-bit integers as
// numbers (also with an exponent, which is how Lua writes large ones) or strings, enums by name or
// number, base64 of either alphabet with or without padding, unknown fields ignored.
func requestDecoding() protojson.UnmarshalOptions {
	return protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxJSONDepth}
}

// decodeRequest decodes the first JSON value of body; an empty body is an empty request. What follows
// the first value is ignored, as in etcd. The error is a gRPC status that names the field at fault.
func decodeRequest(body []byte, m proto.Message) error {
	var value json.RawMessage
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&value)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return errJSON(err)
	}
	return decodeValue(value, m)
}

func decodeValue(value []byte, m proto.Message) error {
	if err := requestDecoding().Unmarshal(value, m); err != nil {
		return errJSON(err)
	}
	return nil
}

// decodeWatchRequests decodes the requests of a watch: any number of JSON values after each other.
func decodeWatchRequests(body []byte) ([]*pb.WatchRequest, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	var requests []*pb.WatchRequest
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		switch {
		case errors.Is(err, io.EOF):
			return requests, nil
		case err != nil:
			return nil, errJSON(err)
		}
		request := new(pb.WatchRequest)
		if err := decodeValue(value, request); err != nil {
			return nil, err
		}
		requests = append(requests, request)
	}
}

// errJSON says what is wrong with a request, in etcd's words. protojson varies the spaces of its
// messages, so that nobody depends on them; here they are plain ones.
func errJSON(err error) error {
	return status.Error(codes.InvalidArgument, strings.ReplaceAll(err.Error(), "\u00a0", " "))
}

// marshaler is the JSON of the generated handlers: proto names, zero values left out, and no spaces.
type marshaler struct {
	runtime.JSONPb
}

func newMarshaler() *marshaler {
	return &marshaler{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
		UnmarshalOptions: requestDecoding(),
	}}
}

// Marshal implements runtime.Marshaler.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	// This is how the generated handlers pass the error of a stream.
	if chunk, ok := v.(map[string]proto.Message); ok {
		if st, ok := chunk["error"].(*spb.Status); ok {
			return streamErrorJSON(status.FromProto(st))
		}
	}
	text, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding %T: %w", v, err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("encoding %T: %w", v, err)
	}
	return out.Bytes(), nil
}

// The bodies of errors hold the fields of etcd up to 3.5 and from 3.6 on: APISIX compares the field
// "error" of a unary call with texts, and its etcd library does arithmetic on "http_code" of a stream.
type (
	unaryError struct {
		Error   string     `json:"error"`
		Code    codes.Code `json:"code"`
		Message string     `json:"message"`
	}
	streamError struct {
		GRPCCode   codes.Code `json:"grpc_code"`
		HTTPCode   int        `json:"http_code"`
		Message    string     `json:"message"`
		HTTPStatus string     `json:"http_status"`
		Code       codes.Code `json:"code"`
	}
)

// writeError answers a unary call with an error, which is a gRPC status.
func writeError(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	body, err := json.Marshal(unaryError{Error: st.Message(), Code: st.Code(), Message: st.Message()})
	if st.Code() == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", st.Message()) // as the generated handlers of etcd
	}
	writeErrorBody(w, st.Code(), body, err)
}

// writeStreamError answers a stream with an error before its first message.
func writeStreamError(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	body, err := streamErrorJSON(st)
	writeErrorBody(w, st.Code(), append(body, '\n'), err)
}

func writeErrorBody(w http.ResponseWriter, code codes.Code, body []byte, err error) {
	if err != nil { // not with these types
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonContentType)
	w.WriteHeader(httpStatus(code))
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// streamErrorJSON is the last message of a stream that failed.
func streamErrorJSON(st *status.Status) ([]byte, error) {
	code := httpStatus(st.Code())
	text := http.StatusText(code)
	if code == statusClientClosed {
		text = "Client Closed Request"
	}
	return json.Marshal(map[string]streamError{"error": {
		GRPCCode: st.Code(), HTTPCode: code, Message: st.Message(), HTTPStatus: text, Code: st.Code(),
	}})
}

// writeGatewayError is writeError for the generated handlers.
func writeGatewayError(
	_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error,
) {
	writeError(w, err)
}
