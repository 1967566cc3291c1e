package console_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"meshbridge/cmd/internal/console"
	"meshbridge/gateway"
	"meshbridge/translate"
	"meshbridge/xds"
)

// paths are those of all views, by the last part of their twins'.
func paths() map[string]string {
	const cluster = "?type=Cluster&name=outbound%7C9080%7Cv1%7Creviews.default.svc.cluster.local"
	return map[string]string{
		"now": "/", "sync": "/sync", "resources": "/resources", "resource" + cluster: "/resource" + cluster, "warnings": "/warnings",
		"graph": "/graph", "check?host=reviews:9080": "/check?host=reviews:9080", "changes": "/changes", "tools": "/tools", "support": "/support",
	}
}

func TestEveryViewIsAPageAndJSON(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	b.watchers = []gateway.Watcher{{Peer: "127.0.0.1:5", Protocol: "http", Since: time.Now(), Keys: []string{"[/apisix/, /apisix0)"}}}
	b.journal.Add(7, time.Now(), []console.Change{{Key: b.objects[0].Key(), After: b.objects[0].Value}})
	for twin, path := range paths() {
		t.Run(path, func(t *testing.T) {
			w := b.do(http.MethodGet, path, "")
			if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
				t.Fatalf("%d %v\n%s", w.Code, w.Header(), w.Body)
			}
			policy := w.Header().Get("Content-Security-Policy")
			if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") {
				t.Errorf("policy %q", policy)
			}
			checkPage(t, w.Body.String())
			var answer map[string]any
			b.twin(t, "/api/v1/"+twin, &answer)
			if len(answer) == 0 {
				t.Error("the JSON is empty")
			}
		})
	}
}

// checkPage fails where a page is hard to use with a keyboard or a screen reader, or needs what is forbidden.
func checkPage(t *testing.T, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids, count := map[string]bool{}, map[string]int{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		attributes := map[string]string{}
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.Contains(a.Val, "javascript:") {
				t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
			}
			if strings.Contains(a.Val, "://") && a.Key != "xmlns" || strings.HasPrefix(a.Val, "//") {
				t.Errorf("refers to elsewhere: <%s %s=%q>", n.Data, a.Key, a.Val)
			}
		}
		if id := attributes["id"]; id != "" {
			if ids[id] {
				t.Errorf("id %q is used twice", id)
			}
			ids[id] = true
		}
		switch n.Data {
		case "script":
			t.Error("has a script")
		case "input", "select", "textarea":
			if attributes["type"] != "hidden" && !within(n, "label") {
				t.Errorf("<%s name=%q> has no label", n.Data, attributes["name"])
			}
		case "th":
			if attributes["scope"] == "" {
				t.Error("a header of a table does not say of what")
			}
		case "table":
			if !within(n, "div") {
				t.Error("a table cannot be scrolled on its own")
			}
		}
	}
	for _, one := range []string{"h1", "main", "header", "footer", "title"} {
		if n := count[one]; n != 1 && (one != "title" || n == 0) { // drawings have titles, too
			t.Errorf("%d <%s>, want 1", n, one)
		}
	}
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "aria-labelledby" && !ids[a.Val] || n.Data == "a" && a.Key == "href" && strings.HasPrefix(a.Val, "#") && !ids[a.Val[1:]] {
				t.Errorf("%s=%q leads nowhere", a.Key, a.Val)
			}
		}
	}
	if !strings.Contains(page, `class="skip" href="#content"`) || strings.Count(page, `aria-current="page"`) > 1 {
		t.Error("no link to skip the menu, or two current views")
	}
}

func within(n *html.Node, element string) bool {
	for p := range n.Ancestors() {
		if p.Data == element {
			return true
		}
	}
	return false
}

func TestOnlyThoseWhoAskForHTMLGetThePageAtTheRoot(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	for accept, page := range map[string]bool{"text/html,*/*;q=0.8": true, "*/*": false, "": false, "application/json": false} {
		text := b.do(http.MethodGet, "/", "", "Accept", accept).Body.String()
		if strings.Contains(text, "<html") != page || page == (text == "the text list\n") {
			t.Errorf("Accept %q: %s", accept, text)
		}
	}
}

func TestAssetsAreServedAndNothingElse(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	for path, want := range map[string]int{
		"/assets/console.css": http.StatusOK, "/assets/icon.svg": http.StatusOK,
		"/assets/page.go": http.StatusNotFound, "/assets/..%2ftemplates%2fnow.html": http.StatusNotFound,
	} {
		if w := b.do(http.MethodGet, path, ""); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestTheStateIsOneSentence(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	since := time.Date(2026, 3, 1, 12, 4, 11, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*bridge)
		state  string
		want   []string
	}{
		"in sync": {func(*bridge) {}, "in_sync", []string{
			"In sync with istiod-7d9c5b6f4-x2x7z since 12:04:11 UTC; 21 clusters, ", " routes; ",
		}},
		"stale": {func(b *bridge) { b.status.Connected, b.status.LastError = false, errors.New("refused") }, "stale", []string{
			"Serving the last good configuration; 21 clusters", "Disconnected since 12:04:11 UTC: istiod-7d9c5b6f4-x2x7z does not answer",
		}},
		"last good": {func(b *bridge) { b.world.LastGood = true }, "stale", []string{
			"Serving the last good state of an earlier process", "has not sent a complete configuration since the start",
		}},
		"refused": {func(b *bridge) {
			b.world.Rejected = []xds.Rejection{{Key: xds.Key{Type: xds.ClusterType, Name: "bad"}, Err: errors.New("no timeout")}}
		}, "attention", []string{"1 resource refused"}},
		"starting": {func(b *bridge) {
			b.world = console.World{Pending: []xds.Key{{Type: xds.ClusterType}}}
		}, "starting", []string{"Starting: waiting for 1 resource"}},
		"unreachable": {func(b *bridge) {
			b.world = console.World{}
			b.status = &xds.Status{Target: "istiod:15010", LastError: errors.New("connection refused")}
		}, "starting", []string{"Starting: waiting for istiod at istiod:15010: connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			world, status := b.world, *b.status
			defer func() { b.world, b.status = world, &status }()
			changed := status
			changed.Since = since
			b.status = &changed
			c.change(b)
			page := b.get(t, "/")
			contains(t, page, c.want...)
			checkPage(t, page)
			var now struct{ State string }
			b.twin(t, "/api/v1/now", &now)
			if now.State != c.state {
				t.Errorf("state %q, want %q", now.State, c.state)
			}
		})
	}
}

func TestBeforeTheFirstConfigurationEveryViewAnswers(t *testing.T) {
	b := newBridge(t, translate.Mesh(), nil)
	b.world = console.World{}
	for _, path := range paths() {
		if strings.HasPrefix(path, "/resource?") || strings.HasPrefix(path, "/check?") {
			continue
		}
		checkPage(t, b.get(t, path))
	}
	if w := b.do(http.MethodGet, "/check?host=a", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("check: %d", w.Code)
	}
}

func TestWhoWatchesAndHowFarIsShown(t *testing.T) {
	b := newBridge(t, translate.Mesh(), load(t, recorded))
	revision := b.store.Stats().Revision
	b.watchers = []gateway.Watcher{
		{Peer: "127.0.0.1:5001", Protocol: "http", Since: time.Now(), Keys: []string{"[/apisix/, /apisix0)"}, Revision: revision},
		{Peer: "127.0.0.1:5002", Protocol: "grpc", Since: time.Now(), Keys: []string{"\x00"}, Revision: revision - 1},
	}
	contains(t, b.get(t, "/"), "127.0.0.1:5001", "[/apisix/, /apisix0)", strconv.FormatInt(revision, 10), "1 revision", "\ufffd")
	var now struct {
		Watchers []struct {
			Peer   string
			Behind int
		}
	}
	b.twin(t, "/api/v1/now", &now)
	if len(now.Watchers) != 2 || now.Watchers[0].Peer != "127.0.0.1:5002" || now.Watchers[0].Behind != 1 {
		t.Errorf("%+v", now)
	}
}
