package console_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/proto"

	"meshbridge/cmd/internal/console"
	"meshbridge/identity"
	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// hostile are names that end what they are put into.
const hostile = `<script>alert("1")</script>'"]}--><b`

func TestHostileNamesStayText(t *testing.T) {
	mesh := xdstest.Mesh(1, 1)
	host := mesh.Routes[0].GetVirtualHosts()[0]
	host.Name = hostile
	route := proto.CloneOf(host.GetRoutes()[0])
	route.Name = hostile
	route.GetRoute().ClusterSpecifier = &routepb.RouteAction_Cluster{Cluster: hostile}
	host.Routes = []*routepb.Route{route}
	cluster := proto.CloneOf(mesh.Clusters[0])
	cluster.Name = hostile
	resources := append(mesh.Resources(), cluster)
	b := newBridge(t, translate.Mesh(), snapshotOf(t, resources...))
	b.world.Rejected = []xds.Rejection{{Key: xds.Key{Type: xds.ClusterType, Name: hostile + "2"}, Err: errors.New(hostile)}}
	b.status.LastError = errors.New(hostile)
	b.journal.Add(9, time.Now(), []console.Change{{Key: "routes/" + hostile, After: []byte(`{"name":` + quoted(hostile) + `}`)}})
	q := url.QueryEscape(hostile)
	config := url.QueryEscape(mesh.Routes[0].GetName())
	for _, path := range []string{
		"/", "/sync", "/resources?q=" + q, "/resources", "/resource?type=Cluster&name=" + q, "/warnings", "/warnings?q=" + q, "/graph", "/graph?q=" + q,
		"/resource?type=RouteConfiguration&name=" + config + "&virtual_host=" + q, "/check?headers=" + q + "&host=" + q + "&path=" + q, "/changes",
		"/graph?config=" + config + "&host=" + q, "/changes?q=" + q, "/tools?q=" + q,
	} {
		page := b.get(t, path)
		if strings.Contains(page, "<script") || strings.Contains(page, "<b>alert") {
			t.Errorf("%s: a name is markup:\n%s", path, page)
		}
		checkPage(t, page)
	}
	for _, path := range []string{"/resource?type=" + q + "&name=" + q, "/warnings?severity=" + q, "/resources?page=" + q, "/graph?host=" + q + "2", "/changes?revision=" + q} {
		w := b.do(http.MethodGet, path, "")
		if w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		checkPage(t, w.Body.String())
	}
	svg := b.get(t, "/graph?format=svg&host="+q)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is no XML: %v\n%s", err, svg)
		}
	}
	contains(t, b.get(t, "/graph?format=dot"), `<script>alert(\"1\")`)
	if text := b.get(t, "/graph?format=mermaid"); strings.ContainsAny(strings.ReplaceAll(text, "-->", ""), "<>") {
		t.Errorf("a name is markup of Mermaid's:\n%s", text)
	}
}

func quoted(s string) string {
	text, _ := json.Marshal(s) // of a string
	return string(text)
}

func TestThousandsOfResourcesAreShownByThePage(t *testing.T) {
	b := newBridge(t, translate.Mesh(), snapshotOf(t, xdstest.Mesh(1234, 1).Resources()...))
	type list struct {
		Resources []struct{ Type, Name string }
		Page      struct{ Page, Pages, Total int }
	}
	read := func(query string) (l list) {
		b.twin(t, "/api/v1/resources?"+query, &l)
		return l
	}
	first, second, last, beyond := read("type=Cluster"), read("type=Cluster&page=2"), read("type=Cluster&page=25"), read("type=Cluster&page=99")
	if first.Page.Total != 1234 || first.Page.Pages != 25 || len(first.Resources) != 50 || len(last.Resources) != 34 || second.Resources[0] == first.Resources[0] {
		t.Errorf("pages: %+v, %d and %d resources", first.Page, len(first.Resources), len(last.Resources))
	}
	if beyond.Page.Page != 25 || len(beyond.Resources) != 34 {
		t.Errorf("a page beyond the last: %+v", beyond.Page)
	}
	if all := read("type=Cluster&per_page=100000"); len(all.Resources) != 1000 {
		t.Errorf("%d resources on one page", len(all.Resources))
	}
	found := read("q=SVC-77.default&type=Cluster")
	if found.Page.Total != 1 || !strings.Contains(found.Resources[0].Name, "svc-77.default") {
		t.Errorf("found %+v", found)
	}
	if hosts := read("q=svc-77.default&type=VirtualHost"); hosts.Page.Total != 1 {
		t.Errorf("virtual hosts: %+v", hosts)
	}
	page := b.get(t, "/resources?type=Cluster&page=2")
	contains(t, page, `href="?page=1&amp;type=Cluster" rel="prev"`, `href="?page=3&amp;type=Cluster" rel="next"`, "page 2 of 25, 1\u202f234 in all")
	if w := b.do(http.MethodGet, "/resources?page=0", ""); w.Code != http.StatusBadRequest {
		t.Errorf("page 0: %d", w.Code)
	}
	contains(t, b.get(t, "/graph"), "hosts to choose from")
}

func TestAResourceIsBesideWhatItBecame(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	query := "?type=Cluster&name=" + url.QueryEscape("outbound|9080|v1|reviews.default.svc.cluster.local")
	page := b.get(t, "/resource"+query)
	contains(t, page, "DestinationRule default/reviews", "kubectl -n default get destinationrule reviews -o yaml", "<code>upstreams/u.9080.v1.reviews.default.")
	// The field that APISIX does not have is marked where it is.
	line, remark := strings.Index(page, "<b>tcp_keepalive</b>"), strings.Index(page, "tcp_keepalive has no effect")
	if line < 0 || remark < line || remark-line > 400 {
		t.Errorf("the remark is at %d, its line at %d", remark, line)
	}
	if !strings.Contains(page[max(0, line-120):line], `class="l warning"`) {
		t.Errorf("the line is not marked: %s", page[max(0, line-120):line])
	}
	var twin struct {
		Resource    map[string]any
		APISIX      []struct{ Key, Origin string }
		Origins     []struct{ Name string }
		Diagnostics []translate.Diagnostic
	}
	b.twin(t, "/api/v1/resource"+query, &twin)
	if len(twin.APISIX) == 0 || twin.Origins[0].Name != "DestinationRule default/reviews" || len(twin.Diagnostics) == 0 || twin.Resource["name"] == nil {
		t.Errorf("%+v", twin)
	}
	// A virtual host stands for itself, with the upstreams that its routes lead to.
	page = b.get(t, "/resource?type=RouteConfiguration&name=9080&virtual_host=reviews.default.svc.cluster.local:9080")
	contains(t, page, "VirtualService default/reviews", "(referred to)", "routes/r.9080.reviews.default.hdr.")
	if strings.Contains(page, "routes/r.9080.ratings") {
		t.Error("has the routes of another virtual host")
	}
}

func TestWarningsAreGroupedByCode(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	type group struct {
		Code, Severity, Explanation, Document string
		Count, More                           int
		Places                                []struct{ Resource, Field, Message string }
	}
	var all, one struct {
		Counts struct{ Error, Warning, Info int }
		Groups []group
	}
	b.twin(t, "/api/v1/warnings", &all)
	sum := 0
	for i, g := range all.Groups {
		sum += g.Count
		if g.Explanation == "" || g.Document != "docs/support.md#"+g.Code || len(g.Places)+g.More != g.Count {
			t.Errorf("%+v", g)
		}
		if i > 0 && g.Severity == "error" && all.Groups[i-1].Severity != "error" {
			t.Errorf("%s: an error after others", g.Code)
		}
	}
	if sum != len(b.world.Diagnostics) || all.Counts.Error+all.Counts.Warning+all.Counts.Info != sum {
		t.Errorf("%d diagnostics are shown of %d; %+v", sum, len(b.world.Diagnostics), all.Counts)
	}
	b.twin(t, "/api/v1/warnings?code=setting_ignored", &one)
	if len(one.Groups) != 1 || one.Groups[0].More != 0 || len(one.Groups[0].Places) != one.Groups[0].Count {
		t.Errorf("%+v", one)
	}
	contains(t, b.get(t, "/warnings?code=setting_ignored"), `href="/support#setting_ignored"`, "docs/support.md#setting_ignored")
	if page := b.get(t, "/warnings?severity=error"); strings.Contains(page, "setting_ignored") {
		t.Error("a warning is among the errors")
	}
	contains(t, b.get(t, "/support"), `id="setting_ignored"`)
}

func TestTheGraphLeadsFromTheListenerToTheEndpoints(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	path := "/graph?config=9080&host=reviews.default.svc.cluster.local:9080"
	page := b.get(t, path)
	contains(t, page, "<svg", "reviews.default:9080", "reviews.default v1 :9080", "10.1.0.13:9080", "2 of 2 endpoints healthy")
	var twin struct {
		Outbound struct {
			Nodes []struct{ ID, Kind string }
			Edges []struct{ From, To string }
		}
	}
	b.twin(t, "/api/v1"+path, &twin)
	kinds := map[string]int{}
	known := map[string]bool{}
	for _, n := range twin.Outbound.Nodes {
		kinds[n.Kind]++
		known[n.ID] = true
	}
	for _, e := range twin.Outbound.Edges {
		if !known[e.From] || !known[e.To] {
			t.Errorf("an edge leads nowhere: %+v", e)
		}
	}
	for _, kind := range []string{"listener", "host", "route", "cluster", "endpoint"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s: %v", kind, kinds)
		}
	}
	contains(t, b.get(t, path+"&format=dot"), "digraph", `reviews.default v1 :9080`)
	contains(t, b.get(t, path+"&format=mermaid"), "flowchart LR", `reviews.default v1 :9080`)
	contains(t, b.get(t, path+"&format=svg"), "<svg xmlns=", "<style>")
	if w := b.do(http.MethodGet, path+"&format=pdf", ""); w.Code != http.StatusBadRequest {
		t.Errorf("pdf: %d", w.Code)
	}
}

func TestAClusterWithoutHealthyEndpointsIsMarked(t *testing.T) {
	mesh := xdstest.Mesh(2, 1)
	mesh.Endpoints[0].Endpoints = nil
	b := newBridge(t, translate.Mesh(), snapshotOf(t, mesh.Resources()...))
	contains(t, b.get(t, "/graph"), `class="cluster bad"`, "no endpoints", "✖")
}

func TestARouteCheckAnswersAsExplainDoes(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	page := b.get(t, "/check?method=GET&host=reviews:9080&path=/reviews&headers="+url.QueryEscape("End-User: jason\nx-pre: foobar"))
	contains(t, page, "What happens", "VirtualService default/reviews", "Why not the others", "End-User: jason")
	var twin struct {
		Answer struct {
			RouteID    string `json:"route_id"`
			Candidates []struct{ Reason string }
		}
	}
	b.twin(t, "/api/v1/check?host=reviews:9080&path=/", &twin)
	if twin.Answer.RouteID == "" || len(twin.Answer.Candidates) < 2 {
		t.Errorf("%+v", twin)
	}
	contains(t, b.get(t, "/check?host=reviews:9080&headers=oops"), "want NAME: VALUE")
	contains(t, b.get(t, "/check?host=reviews:1"), "no chain receives")
	for _, query := range []string{"", "?host=reviews:1"} {
		if w := b.do(http.MethodGet, "/api/v1/check"+query, ""); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", query, w.Code)
		}
	}
}

func TestChangesAreShownAsDifferences(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	b.journal.Add(41, time.Now(), []console.Change{{Key: "routes/r.a", After: []byte(`{"id":"r.a","priority":1}`)}, {Key: "routes/", After: []byte("init_dir")}})
	b.journal.Add(42, time.Now(), []console.Change{{Key: "routes/r.a", Before: []byte(`{"id":"r.a","priority":1}`), After: []byte(`{"id":"r.a","priority":2}`)}})
	b.journal.Add(43, time.Now(), []console.Change{{Key: "routes/r.a", Before: []byte(`{"id":"r.a","priority":2}`)}})
	page := b.get(t, "/changes?revision=42")
	contains(t, page, `<span class="minus">-priority: 1</span>`, `<span class="plus">&#43;priority: 2</span>`, `<span class="same"> id: r.a</span>`)
	var twin struct {
		Commits []struct {
			Revision     int64
			Put, Deleted int
			Changes      []struct {
				Op         string
				Difference []string
			}
		}
	}
	b.twin(t, "/api/v1/changes", &twin)
	var ops []string
	for _, c := range twin.Commits {
		ops = append(ops, c.Changes[0].Op)
	}
	if !slices.Equal(ops, []string{"delete", "update", "create"}) || twin.Commits[0].Deleted != 1 || twin.Commits[2].Put != 1 {
		t.Errorf("%q, %+v", ops, twin)
	}
	if w := b.do(http.MethodGet, "/changes?revision=7", ""); w.Code != http.StatusNotFound {
		t.Errorf("an unknown revision: %d", w.Code)
	}
}

func TestPrivateKeysAreNowhere(t *testing.T) {
	resources := xdstest.Gateway(443, "shop.example")
	credential := xdstest.Credential("shop.example")
	key := string(credential.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
	secret := strings.Split(key, "\n")[1]
	if len(secret) < 20 {
		t.Fatalf("no key in %v", credential)
	}
	for i, r := range resources {
		if proto.MessageName(r) == proto.MessageName(credential) {
			resources[i] = credential
		}
	}
	snapshot := snapshotOf(t, append(resources, credential)...)
	b := newBridge(t, translate.Gateway(), snapshot)
	held := false
	for _, o := range b.objects {
		if strings.Contains(string(o.Value), secret) {
			held = true
			b.journal.Add(9, time.Now(), []console.Change{{Key: o.Key(), After: o.Value}})
		}
	}
	if !held {
		t.Fatal("no object has the key: there is nothing to redact")
	}
	name := url.QueryEscape(credential.GetName())
	redacted := 0
	for _, path := range []string{"/", "/resources", "/resource?type=Secret&name=" + name, "/changes", "/warnings", "/graph"} {
		twin := "/api/v1" + path
		if path == "/" {
			twin = "/api/v1/now"
		}
		for _, text := range []string{b.get(t, path), b.get(t, twin)} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has the key", path)
			}
			redacted += strings.Count(text, "[redacted]")
		}
	}
	if redacted < 4 {
		t.Errorf("%d times [redacted]: the secret or its object is not shown at all", redacted)
	}
}

func TestLogLevelsAreChangedFromThePageAlone(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	contains(t, b.get(t, "/tools"), `name="xds"`, "etcdctl --endpoints=127.0.0.1:2379", "istioctl proxy-status client.default")
	send := func(body string, header ...string) int {
		return b.do(http.MethodPost, "/tools", body, append(header, "Content-Type", "application/x-www-form-urlencoded")...).Code
	}
	const origin = "http://127.0.0.1:15000"
	for name, c := range map[string]struct {
		body   string
		header []string
		want   int
	}{
		"without an origin":       {"xds=debug", nil, http.StatusForbidden},
		"from another page":       {"xds=debug", []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		"from another port":       {"xds=debug", []string{"Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"from a sandboxed page":   {"xds=debug", []string{"Origin", "null"}, http.StatusForbidden},
		"of a scope there is not": {"nothing=debug", []string{"Origin", origin}, http.StatusBadRequest},
		"to a level there is not": {"xds=loud", []string{"Origin", origin}, http.StatusBadRequest},
	} {
		if got := send(c.body, c.header...); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if b.levels.Get("xds") != 0 {
		t.Error("a level was changed all the same")
	}
	if got := send("xds=debug&dns=info", "Origin", origin, "Sec-Fetch-Site", "same-origin"); got != http.StatusSeeOther || b.levels.Get("xds") >= 0 || b.levels.Get("dns") != 0 {
		t.Errorf("%d, xds %v", got, b.levels.Get("xds"))
	}
}

func TestWhatEndsIsShown(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	write := func(claims jwt.RegisteredClaims) {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("key of a test that is long enough"))
		if err == nil {
			err = os.WriteFile(token, []byte(text+"\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ends := time.Now().Add(90 * time.Minute)
	b := newBridge(t, translate.Mesh(), load(t, recorded), func(c *console.Config) {
		c.TokenFile = token
		c.Identity = func() *identity.Identity { return &identity.Identity{ID: "spiffe://mesh/a", NotAfter: ends} }
	})
	var now struct {
		Expiry []struct {
			What, Detail string
			Until        time.Time
			Soon         bool
		}
	}
	read := func() {
		t.Helper()
		now.Expiry = nil
		b.twin(t, "/api/v1/now", &now)
		if len(now.Expiry) != 2 || now.Expiry[0].Detail != "spiffe://mesh/a" || !now.Expiry[0].Until.Equal(ends) {
			t.Fatalf("%+v", now)
		}
	}
	if read(); !now.Expiry[1].Soon || !strings.Contains(now.Expiry[1].Detail, "no such file") {
		t.Errorf("without a token: %+v", now.Expiry[1])
	}
	write(jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(ends)})
	if read(); now.Expiry[1].Soon || now.Expiry[1].Until.Unix() != ends.Unix() {
		t.Errorf("with a token: %+v", now.Expiry[1])
	}
	write(jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(time.Now())})
	if read(); !now.Expiry[1].Soon {
		t.Errorf("with a token that has ended: %+v", now.Expiry[1])
	}
	contains(t, b.get(t, "/"), "workload certificate", "ends", "in 89 min")
}

func TestWhatIstiodRefusesIsToldWithTheType(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	b.status.Types = map[string]xds.TypeStatus{
		xds.ClusterType: {Wildcard: true, Responses: 3, LastResponse: time.Now(), NACK: errors.New("Cluster bad: no timeout"), Resources: 21},
		xds.RouteType:   {Subscribed: 5, Responses: 1, LastResponse: time.Now(), Version: "v7", Nonce: "n1"},
	}
	b.world.Rejected = []xds.Rejection{{Key: xds.Key{Type: xds.ClusterType, Name: "bad"}, Err: errors.New("no timeout")}}
	page := b.get(t, "/sync")
	contains(t, page, "✖ NACK", "Cluster bad: no timeout", "✔ ACK", "v7", "Refused resources")
	var sync struct {
		Types []struct {
			Type, Answer string
			Wildcard     bool
			Subscribed   int
		}
	}
	b.twin(t, "/api/v1/sync", &sync)
	if sync.Types[0].Type != "Listener" || sync.Types[1].Answer != "ack" || sync.Types[1].Subscribed != 5 || sync.Types[2].Answer != "nack" || !sync.Types[2].Wildcard {
		t.Errorf("%+v", sync)
	}
	var of clusterpb.Cluster
	contains(t, b.get(t, "/resources?flagged=1&type="+string(of.ProtoReflect().Descriptor().Name())), "refused:", "no timeout")
}
