package etcd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// httpCaller is a caller over HTTP.
type httpCaller struct {
	server server
	client *http.Client
	leases *leaseNames
	// spelling varies how requests are written, in the same way for both servers.
	spelling *rand.Rand
	// differences are those that are accepted in the server's answers.
	differences []difference
}

func newHTTPCaller(t *testing.T, s server, spelling *rand.Rand, differences ...difference) *httpCaller {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &httpCaller{
		server: s, client: &http.Client{Transport: transport, Timeout: patience},
		leases: newLeaseNames(), spelling: spelling, differences: differences,
	}
}

func (c *httpCaller) call(t *testing.T, request proto.Message) answer {
	t.Helper()
	path, response := c.route(request)
	status, body := c.post(t, path, c.spell(t, c.leases.requested(request)))
	if status != http.StatusOK {
		return answer{failure: fmt.Sprintf("%d %s", status, body)}
	}
	if _, ok := request.(*pb.LeaseKeepAliveRequest); ok { // a stream
		if strings.HasPrefix(body, `{"error"`) {
			return answer{failure: body}
		}
		body = strings.TrimSuffix(strings.TrimPrefix(body, `{"result":`), "}")
	}
	if err := protojson.Unmarshal([]byte(body), response); err != nil {
		t.Fatalf("%s: %v in %s", c.server.name, err, body)
	}
	c.leases.answered(request, response)
	withoutChoices(response)
	return answer{response: response, text: c.normalise(body)}
}

// post returns the status and the first JSON value of the body, without the
// spaces that etcd adds at random.
func (c *httpCaller) post(t *testing.T, path string, body []byte) (status int, text string) {
	t.Helper()
	response, err := c.client.Post("http://"+c.server.address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answered, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, bytes.TrimSpace(answered)); err != nil {
		t.Fatalf("%s %s: %v in %q", c.server.name, path, err, answered)
	}
	text = compact.String()
	for _, d := range c.differences {
		text = d.asEtcd(text)
	}
	return response.StatusCode, text
}

// route is the path of a request and its empty response.
func (c *httpCaller) route(request proto.Message) (path string, response proto.Message) {
	// Clients use both paths of leases.
	lease := []string{"/v3/lease/", "/v3/kv/lease/"}[c.spelling.IntN(2)]
	switch request.(type) {
	case *pb.PutRequest:
		return "/v3/kv/put", &pb.PutResponse{}
	case *pb.RangeRequest:
		return "/v3/kv/range", &pb.RangeResponse{}
	case *pb.DeleteRangeRequest:
		return "/v3/kv/deleterange", &pb.DeleteRangeResponse{}
	case *pb.TxnRequest:
		return "/v3/kv/txn", &pb.TxnResponse{}
	case *pb.CompactionRequest:
		return "/v3/kv/compaction", &pb.CompactionResponse{}
	case *pb.HashKVRequest:
		return "/v3/maintenance/hashkv", &pb.HashKVResponse{}
	case *pb.LeaseGrantRequest:
		return "/v3/lease/grant", &pb.LeaseGrantResponse{}
	case *pb.LeaseRevokeRequest:
		return lease + "revoke", &pb.LeaseRevokeResponse{}
	case *pb.LeaseTimeToLiveRequest:
		return lease + "timetolive", &pb.LeaseTimeToLiveResponse{}
	case *pb.LeaseLeasesRequest:
		return lease + "leases", &pb.LeaseLeasesResponse{}
	case *pb.LeaseKeepAliveRequest:
		return "/v3/lease/keepalive", &pb.LeaseKeepAliveResponse{}
	default:
		panic(fmt.Sprintf("no path for %T", request))
	}
}

// spell writes a request as one client or another would: with names in snake
// or camel case, enums as names or numbers, 64-bit integers as strings or
// numbers, and any of the usual forms of base64.
func (c *httpCaller) spell(t *testing.T, request proto.Message) []byte {
	t.Helper()
	options := protojson.MarshalOptions{
		UseProtoNames: c.spelling.IntN(2) == 0, UseEnumNumbers: c.spelling.IntN(2) == 0, EmitUnpopulated: c.spelling.IntN(4) == 0,
	}
	text, err := options.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if c.spelling.IntN(2) == 0 {
		text = integer.ReplaceAll(text, []byte(`:$1`))
	}
	encoding := []*base64.Encoding{
		base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding,
	}[c.spelling.IntN(4)]
	return base64Bytes.ReplaceAllFunc(text, func(member []byte) []byte {
		found := base64Bytes.FindSubmatch(member)
		value, err := base64.StdEncoding.DecodeString(string(found[2]))
		if err != nil {
			t.Fatal(err)
		}
		return append(found[1], encoding.EncodeToString(value)+`"`...)
	})
}

var (
	integer     = regexp.MustCompile(`: *"(-?[0-9]+)"`) // no bytes in these tests look like one
	base64Bytes = regexp.MustCompile(`("(?:key|range_end|rangeEnd|value)": *")([^"]*)"`)

	chosen    = regexp.MustCompile(`"(cluster_id|member_id|raft_term)":"\d+"`)
	leaseID   = regexp.MustCompile(`"(ID|lease)":"(-?\d+)"`)
	remaining = regexp.MustCompile(`"TTL":"(\d+)"`)
	leaseKeys = regexp.MustCompile(`"keys":\[([^]]*)\]`)
)

// normalise removes from a text what two servers may answer differently.
func (c *httpCaller) normalise(text string) string {
	text = chosen.ReplaceAllString(text, `"$1":"0"`)
	text = leaseID.ReplaceAllStringFunc(text, func(member string) string {
		found := leaseID.FindStringSubmatch(member)
		id, err := strconv.ParseInt(found[2], 10, 64)
		if err != nil {
			return member
		}
		if name, ok := c.leases.nameFor[id]; ok {
			id = name
		}
		return fmt.Sprintf(`%q:"%d"`, found[1], id)
	})
	text = remaining.ReplaceAllStringFunc(text, func(member string) string {
		ttl, err := strconv.ParseInt(remaining.FindStringSubmatch(member)[1], 10, 64)
		if err != nil {
			return member
		}
		return fmt.Sprintf(`"TTL":"%d"`, (ttl+leaseStep-1)/leaseStep*leaseStep)
	})
	return leaseKeys.ReplaceAllStringFunc(text, func(member string) string {
		keys := strings.Split(leaseKeys.FindStringSubmatch(member)[1], ",")
		slices.Sort(keys)
		return `"keys":[` + strings.Join(keys, ",") + `]`
	})
}
