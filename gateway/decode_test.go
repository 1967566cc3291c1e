package gateway

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Whatever comes is decoded or refused as invalid; what was decoded means the same when it is written
// out and decoded again.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"key":"L2FwaXNpeA==","range_end":"L2FwaXNpeQ==","limit":0,"sort_order":0,"keys_only":false}`,
		`{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":1.7e+14}}`,
		`{"createRequest":{"key":"-_8","watchId":"7","filters":["NOPUT",1]}}{"cancel_request":{"watch_id":7}} {"progress_request":{}}`,
		`{"key":"L2E`, `[[[[`, `{"revision":1e400}`, "{\"key\":\"\xff\"}", `{"limit":"1e3"}`, `null`, `{"create_request":null}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request := new(pb.RangeRequest)
		checkDecoded(t, decodeRequest(body, request), request, new(pb.RangeRequest))
		requests, err := decodeWatchRequests(body)
		checkRefused(t, err)
		for _, r := range requests {
			checkDecoded(t, nil, r, new(pb.WatchRequest))
		}
	})
}

func checkRefused(t *testing.T, err error) {
	t.Helper()
	if err != nil && (status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), "\u00a0")) {
		t.Fatalf("%v", err)
	}
}

func checkDecoded(t *testing.T, err error, got, again proto.Message) {
	t.Helper()
	if err != nil {
		checkRefused(t, err)
		return
	}
	text, err := protojson.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if err := decodeRequest(text, again); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !proto.Equal(got, again) {
		t.Fatalf("%v became %v", got, again)
	}
}
