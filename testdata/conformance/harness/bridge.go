package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Prefix is the etcd prefix that the bridge serves by default.
const Prefix = "/apisix/"

// ClientNode is a sidecar of a workload that istiod knows no service of.
const ClientNode = "sidecar~127.0.0.1~client.default~default.svc.cluster.local"

// Bridge is a running `meshbridge run`.
type Bridge struct {
	*Process

	// Etcd, Status and Admin are the addresses it serves.
	Etcd, Status, Admin string
}

// StartBridge runs the bridge with an xDS target such as grpc://host:port and
// further flags, and returns when its ports are open. It may not be ready.
func StartBridge(t testing.TB, path, xds string, flags ...string) *Bridge {
	t.Helper()
	args := []string{"run", "--xds", xds, "--log-format", "json", "--log-level", "debug", "--metrics", "off", "--internal", "127.0.0.1:0"}
	for _, flag := range []string{"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--status=127.0.0.1:0", "--node-id=" + ClientNode} {
		name, _, _ := strings.Cut(flag, "=")
		if !slices.ContainsFunc(flags, func(given string) bool { return strings.HasPrefix(given, name+"=") }) {
			args = append(args, flag)
		}
	}
	b := &Bridge{Process: Start(t, path, append(args, flags...)...)}
	b.Etcd = b.address(t, "serving etcd")
	b.Status = b.address(t, "serving status")
	b.Admin = b.address(t, "serving admin")
	return b
}

func (b *Bridge) address(t testing.TB, message string) string {
	t.Helper()
	return b.WaitLog(t, message, func(LogEntry) bool { return true }).Text("address")
}

// LogEntry is one line of the bridge's JSON log.
type LogEntry map[string]any

// Text returns an attribute as text; empty where it is absent.
func (e LogEntry) Text(key string) string {
	if e[key] == nil {
		return ""
	}
	return fmt.Sprint(e[key])
}

// Log returns the entries written so far.
func (b *Bridge) Log() []LogEntry {
	var entries []LogEntry
	for _, line := range b.Lines() {
		if entry, ok := parseLog(line); ok {
			entries = append(entries, entry)
		}
	}
	return entries
}

func parseLog(line string) (LogEntry, bool) {
	var entry LogEntry
	return entry, json.Unmarshal([]byte(line), &entry) == nil
}

// WaitLog waits for an entry with the message that match accepts.
func (b *Bridge) WaitLog(t testing.TB, message string, match func(LogEntry) bool) LogEntry {
	t.Helper()
	line := b.WaitLine(t, fmt.Sprintf("log entry %q", message), func(line string) bool {
		entry, ok := parseLog(line)
		return ok && entry["msg"] == message && match(entry)
	})
	entry, _ := parseLog(line)
	return entry
}

// Ready tells whether the bridge answers the kubelet that it is ready.
func (b *Bridge) Ready(ctx context.Context) bool {
	_, err := get(ctx, "http://"+b.Status+"/healthz/ready")
	return err == nil
}

// WaitReady waits until the first complete configuration is served.
func (b *Bridge) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, "readiness", func(ctx context.Context) error {
		_, err := get(ctx, "http://"+b.Status+"/healthz/ready")
		return err
	})
}

// Client returns etcd's own client, closed when the test ends.
func (b *Bridge) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{b.Etcd},
		DialTimeout: Patience,
		DialOptions: []grpc.DialOption{grpc.WithIdleTimeout(0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Object is one key of the store.
type Object struct {
	Value       string
	ModRevision int64
}

// Snapshot is what the store held at one revision.
type Snapshot struct {
	Revision int64
	Objects  map[string]Object // by key
}

// Range reads the whole prefix as APISIX does, over HTTP.
func (b *Bridge) Range(ctx context.Context) (Snapshot, error) {
	body, status, err := b.post(ctx, "/v3/kv/range", map[string]any{
		"key": []byte(Prefix), "range_end": []byte(prefixEnd), "revision": 0, "limit": 0,
	})
	if err != nil {
		return Snapshot{}, err
	}
	if status != http.StatusOK {
		return Snapshot{}, fmt.Errorf("range: HTTP %d: %s", status, body)
	}
	var response struct {
		Header header
		KVs    []keyValue `json:"kvs"`
	}
	if err := json.Unmarshal(body, &response); err != nil {
		return Snapshot{}, fmt.Errorf("range: %w in %s", err, body)
	}
	s := Snapshot{Revision: response.Header.Revision, Objects: make(map[string]Object, len(response.KVs))}
	for _, kv := range response.KVs {
		s.Objects[string(kv.Key)] = Object{Value: string(kv.Value), ModRevision: kv.ModRevision}
	}
	return s, nil
}

// MustRange is Range where a failure ends the test.
func (b *Bridge) MustRange(t testing.TB) Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	snapshot, err := b.Range(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// Routes returns the routes among the objects.
func (s Snapshot) Routes() map[string]Object { return s.Below("routes") }

// Upstreams returns the upstreams among the objects.
func (s Snapshot) Upstreams() map[string]Object { return s.Below("upstreams") }

// Below returns the objects of one of APISIX's directories, without the
// directory's own marker.
func (s Snapshot) Below(directory string) map[string]Object {
	objects := make(map[string]Object)
	for key, object := range s.Objects {
		if rest, ok := strings.CutPrefix(key, Prefix+directory+"/"); ok && rest != "" {
			objects[key] = object
		}
	}
	return objects
}

const prefixEnd = "/apisix0"

type header struct {
	Revision int64 `json:"revision,string"`
}

type keyValue struct {
	Key         []byte `json:"key"`
	Value       []byte `json:"value"`
	ModRevision int64  `json:"mod_revision,string"`
}

func (b *Bridge) post(ctx context.Context, path string, request any) (body []byte, status int, err error) {
	response, err := b.open(ctx, path, request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	return body, response.StatusCode, err
}

// open sends a request on a connection of its own, as APISIX does for a watch.
func (b *Bridge) open(ctx context.Context, path string, request any) (*http.Response, error) {
	encoded, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.Etcd+path, strings.NewReader(string(encoded)))
	if err != nil {
		return nil, err
	}
	post.Close = true
	return http.DefaultClient.Do(post)
}

// HoldsRange tells whether a read of the prefix gets no answer for a while.
func (b *Bridge) HoldsRange(ctx context.Context, while time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	snapshot, err := b.Range(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the read was not held: %w", err)
	}
	return fmt.Errorf("the read was answered with %d objects", len(snapshot.Objects))
}
