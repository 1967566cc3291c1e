package bridge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/cmd/internal/accesslog"
	"meshbridge/xds/xdstest"
)

// logging adds an access log to a file to the listeners of a mesh.
func logging(t *testing.T, resources []proto.Message, path, format string) []proto.Message {
	t.Helper()
	return loggingTo(t, resources, &filelogpb.FileAccessLog{Path: path, AccessLogFormat: &filelogpb.FileAccessLog_LogFormat{
		LogFormat: &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: format}},
		}},
	}})
}

// loggingTo adds an access log to the listeners of a mesh.
func loggingTo(t *testing.T, resources []proto.Message, log proto.Message) []proto.Message {
	t.Helper()
	return withManagers(t, resources, func(hcm *http_connection_managerpb.HttpConnectionManager) {
		hcm.AccessLog = append(hcm.AccessLog, &accesslogpb.AccessLog{
			Name: "log", ConfigType: &accesslogpb.AccessLog_TypedConfig{TypedConfig: xdstest.Any(log)},
		})
	})
}

// entry is what an APISIX that was told to run the rule reports of a request with such variables.
func entry(t *testing.T, rule []byte, variables map[string]string) string {
	t.Helper()
	var object struct {
		Plugins map[string]struct{ Functions []string }
	}
	if err := json.Unmarshal(rule, &object); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`vars = \{([^}]*)\}`).FindStringSubmatch(object.Plugins["serverless-post-function"].Functions[0])
	if m == nil {
		t.Fatalf("nothing is to be logged: %s", rule)
	}
	row := []string{"1", "1763846000.25", "12"}
	for name := range strings.SplitSeq(m[1], ", ") {
		row = append(row, variables[strings.Trim(name, `"`)])
	}
	line, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestWhatAPISIXReportsIsInTheAccessLog(t *testing.T) {
	istiod := xdstest.NewServer(t)
	mesh := xdstest.Mesh(3, 1).Resources()
	path := filepath.Join(t.TempDir(), "access.log")
	istiod.Set(logging(t, mesh, path, "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION% %REQ(USER-AGENT)% %RESP(SERVER)% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%\n")...)
	config := testConfig(istiod)
	config.Internal, config.Node, config.RequestMetrics = "127.0.0.1:0", xdstest.Node(), RequestMetricsOff
	config.AccessLogs, config.Translate.BridgeAccessLogs = &accesslog.Config{}, true
	r := startBridge(t, config)
	r.waitReady(t)
	client := r.client(t)
	rule, err := client.Get(t.Context(), "/apisix/global_rules/g.requests")
	if err != nil || len(rule.Kvs) != 1 {
		t.Fatalf("APISIX is not told to report: %v %v", rule, err)
	}
	route, upstream := routeTo(t, client, xdstest.ClusterName(1))
	one := append([]int{1}, make([]int, 19)...)
	d, err := json.Marshal(append([]int{7}, one...))
	if err != nil {
		t.Fatal(err)
	}
	line := entry(t, rule.Kvs[0].GetValue(), map[string]string{
		"request": "GET /a?b HTTP/1.1", "http_user_agent": "curl/8", "sent_http_server": "APISIX", "upstream_connect_time": "0.001",
	})
	report := fmt.Sprintf(`{"worker": "1", "sequence": 1, "series": [{"route": %q, "upstream": %q, "node": "10.0.1.1:8080", "status": 200, `+
		`"headers": ["user-agent", ">server"], "count": 1, "duration": %[3]s, "received": %[3]s, "sent": %[3]s}]}`+"\n%[4]s", route, upstream, d, line)
	for range 2 { // it may come again
		if code, body := post(t, r.config.Translate.Internal.String(), "/log", report); code != http.StatusNoContent {
			t.Fatalf("%d %s", code, body)
		}
	}
	_, text := get(t, "http://"+r.servers[len(r.servers)-1].listener.Addr().String()+"/stats/prometheus")
	if strings.Contains(text, "istio_requests_total{") {
		t.Errorf("a request is counted")
	}
	if routes, err := client.Get(t.Context(), "/apisix/", clientv3.WithPrefix()); err != nil || strings.Contains(fmt.Sprint(routes.Kvs), "file-logger") {
		t.Errorf("APISIX writes the log, too: %v", err)
	}

	// Another header is wanted, and then nothing.
	for _, next := range []struct {
		resources []proto.Message
		want      string
	}{
		{logging(t, mesh, path, "%REQ(X-TEAM)%\n"), "http_x_team"},
		{mesh, ""},
	} {
		watch := client.Watch(t.Context(), "/apisix/global_rules/", clientv3.WithPrefix(), clientv3.WithRev(rule.Header.GetRevision()+1))
		istiod.Set(next.resources...)
		update := <-watch
		if len(update.Events) != 1 || update.Events[0].IsModify() != (next.want != "") || !strings.Contains(string(update.Events[0].GetKv().GetValue()), next.want) {
			t.Fatalf("%q: %v", next.want, update.Events)
		}
		rule.Header.Revision = update.Header.GetRevision()
	}

	r.stop()
	logged, err := os.ReadFile(path)
	if want := "GET /a?b 200 - 12 curl/8 APISIX 10.0.1.1:8080 " + xdstest.ClusterName(1) + ";\n"; err != nil || string(logged) != want {
		t.Errorf("%v, the log has %q, want %q", err, logged, want)
	}
}
