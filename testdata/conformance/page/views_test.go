package page

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"meshbridge/testdata/conformance/harness"
)

// broken is a VirtualService with a mirror that APISIX cannot have: to a subset.
const broken = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details, namespace: default}
spec:
  hosts: [details]
  http:
  - name: mirrored
    route: [{destination: {host: details}}]
    mirror: {host: reviews, subset: v2}
`

// fixed is the same with a mirror to a service.
func fixed() string {
	return strings.Replace(broken, "{host: reviews, subset: v2}", "{host: ratings}", 1)
}

// scenario is a mesh, its istiod, and a bridge whose status page is looked at.
type scenario struct {
	manifests harness.Manifests
	istiod    *harness.Istiod
	bridge    *harness.Bridge
}

func newScenario(t *testing.T) *scenario {
	t.Helper()
	chromium(t) // or skip before anything is started
	s := &scenario{manifests: harness.CopyManifests(t, "../demo")}
	s.manifests.Write(t, "details-routing.yaml", broken)
	s.istiod = harness.StartIstiod(t, binaries.Istiod, s.manifests.Dir)
	s.bridge = harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC)
	s.bridge.WaitReady(t)
	s.istiod.WaitSynced(t)
	return s
}

// awaitTwin waits until a JSON twin has a text, or has it no more.
func (s *scenario) awaitTwin(t *testing.T, path, part string, present bool) {
	t.Helper()
	harness.Eventually(t, path, func(context.Context) error {
		if answer := s.bridge.Ask(t, http.MethodGet, path); strings.Contains(answer, part) != present {
			return fmt.Errorf("%q present: %t", part, !present)
		}
		return nil
	})
}

// watch takes part as APISIX does.
func (s *scenario) watch(t *testing.T) {
	t.Helper()
	s.bridge.Watch(t, 0)
	s.awaitTwin(t, "api/v1/now", `"protocol": "http"`, true)
}

// named is a view with what must be seen on it.
type named struct {
	name, path string
	shows      []string
}

func views() []named {
	reviews := "/resource?type=RouteConfiguration&name=9080&virtual_host=" + url.QueryEscape("details.default.svc.cluster.local:9080")
	return []named{
		{"now", "/", []string{"In sync with", "clusters", "Control plane", "Who watches", "/apisix/"}},
		{"sync", "/sync", []string{"Listener", "RouteConfiguration", "ACK", "No resource is refused."}},
		{"resources", "/resources?q=reviews", []string{"outbound|9080|v1|reviews.default.svc.cluster.local", "VirtualHost"}},
		{"side-by-side", reviews, []string{
			"VirtualService default/details", "requests are not mirrored to cluster", "mirror_not_sent", "routes/r.9080.details.default", "request_mirror_policies",
		}},
		{"warnings", "/warnings", []string{"mirror_not_sent", "VirtualService default/details", "docs/support.md#mirror_not_sent"}},
		{"graph", "/graph?config=9080&host=" + url.QueryEscape("reviews.default.svc.cluster.local:9080"), []string{"canary", "reviews.default v1 :9080", "127.0.1.11:9080"}},
		{"check", "/check?host=reviews:9080&path=/&headers=end-user:+jason", []string{"reviews.default.svc.cluster.local", "VirtualService default/reviews", "127.0.1.12:9080"}},
		{"changes", "/changes", []string{"create", "delete", "routes/r.9080.reviews", "sent to 1 of 1"}},
		{"tools", "/tools", []string{"Log levels", "/config_dump", "istioctl proxy-status client.default"}},
		{"support", "/support", []string{"mirror_not_sent"}},
	}
}

// change makes a second revision, for the view of changes.
func (s *scenario) change(t *testing.T) {
	t.Helper()
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	s.awaitTwin(t, "api/v1/changes", "jason-mraz", true)
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason-mraz", "exact: jason")
	s.awaitTwin(t, "api/v1/changes", `+- [http_end_user, \"==\", jason]`, true)
}

func TestEveryViewIsGoodOnEveryScreen(t *testing.T) {
	s := newScenario(t)
	s.watch(t)
	s.change(t)
	b := openBrowser(t, s.bridge.Admin)
	for _, screen := range []struct {
		name          string
		width, height int64
		dark          bool
	}{{"wide", 1280, 900, false}, {"narrow", 320, 640, false}, {"dark", 1280, 900, true}, {"narrow-dark", 320, 640, true}} {
		for _, v := range views() {
			t.Run(screen.name+"/"+v.name, func(t *testing.T) {
				b.t = t
				b.screen(screen.width, screen.height, screen.dark)
				b.visit(v.path)
				if strings.HasPrefix(screen.name, "narrow") {
					b.do(chromedp.Evaluate[chromedp.Void](`void document.querySelectorAll("details").forEach(d => d.open = true)`))
				}
				b.shows(v.shows...)
				if width := eval[int](b, "document.documentElement.scrollWidth"); width > int(screen.width) {
					t.Errorf("the page is %d wide: %s", width, b.text(widest))
				}
				if dark := b.text("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"; dark != screen.dark {
					t.Errorf("the page is dark: %t", dark)
				}
				if faint := eval[[]string](b, contrast); len(faint) > 0 {
					t.Errorf("hard to read: %s", strings.Join(faint[:min(len(faint), 5)], "; "))
				}
				b.picture(v.name, screen.name)
			})
		}
	}
}

// widest names the element that makes a page too wide.
const widest = `[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 &&
  !e.closest(".scroll, .code, .skip")).map(e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40)).slice(0, 3).join("; ")`

// contrast lists texts whose contrast is below 4.5, as WCAG 2 measures it (AA).
const contrast = `(() => {
  const channels = c => (c.match(/[\d.]+/g) || []).map(Number);
  const luminance = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = channels(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3) } return [255, 255, 255] };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walker.nextNode();) {
    const e = n.parentElement, style = getComputedStyle(e);
    if (!n.textContent.trim() || e.closest("svg, option, .skip, .visually-hidden") || !e.getClientRects().length) continue;
    const a = luminance(channels(style.color)), b = luminance(behind(e)), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(n.textContent.trim().slice(0, 30) + " " + ratio.toFixed(1));
  }
  return faint })()`

// picture writes one of the pictures of the documentation.
func (b *browser) picture(view, screen string) {
	b.t.Helper()
	wanted := screen == "wide" && view != "support" || screen == "dark" && view == "now" || screen == "narrow" && view == "warnings"
	if *screenshots == "" || !wanted {
		return
	}
	name := view
	if screen != "wide" {
		name += "-" + screen
	}
	width := int64(1000)
	switch {
	case screen == "narrow":
		width = 320
	case view == "graph":
		width = 1240
	}
	b.do(chromedp.EmulateViewport(width, 720))
	b.do(chromedp.EmulateViewport(width, min(720, eval[int64](b, "document.documentElement.scrollHeight"))))
	if view == "side-by-side" {
		b.do(chromedp.Evaluate[chromedp.Void](`void document.querySelector(".panes").scrollIntoView()`))
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestAWarningLastsUntilTheVirtualServiceIsFixed(t *testing.T) {
	s := newScenario(t)
	b := openBrowser(t, s.bridge.Admin)
	b.screen(1280, 900, false)
	b.visit("/warnings?flagged=1")
	b.shows("mirror_not_sent", "requests are not mirrored to cluster", "from VirtualService default/details")
	// From the warning to the field, with the line marked where it is.
	if path := b.follow(chromedp.Click(chromedp.CSS(`a[href*="virtual_host=details.default"]`))); path != "/resource" {
		t.Fatalf("the warning leads to %s", path)
	}
	b.shows("request_mirror_policies", "requests are not mirrored to cluster", "kubectl -n default get virtualservice details -o yaml")
	if marked := b.text(`[...document.querySelectorAll(".l.warning")].map(e => e.textContent).join(";")`); !strings.Contains(marked, "outbound|9080|v2|reviews") {
		t.Errorf("the lines %q are marked", marked)
	}
	s.manifests.Write(t, "details-routing.yaml", fixed())
	s.awaitTwin(t, "api/v1/warnings", "mirror_not_sent", false)
	b.visit("/warnings?flagged=1")
	b.hides("mirror_not_sent")
	b.visit("/changes")
	b.shows("proxy-mirror")
}

func TestLosingIstiodIsSaidOnEveryPage(t *testing.T) {
	s := newScenario(t)
	b := openBrowser(t, s.bridge.Admin)
	b.visit("/")
	b.shows("In sync with")
	s.istiod.Stop()
	s.awaitTwin(t, "api/v1/now", `"state": "stale"`, true)
	for _, path := range []string{"/", "/sync", "/graph"} {
		b.visit(path)
		b.shows("Stale.", "Disconnected since")
	}
	b.visit("/")
	b.shows("Serving the last good configuration")
}
