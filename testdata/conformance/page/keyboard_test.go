package page

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// focused describes what has the focus.
const focused = `(e => e.tagName.toLowerCase() + " " + (e.getAttribute("href") || e.name || e.id || e.textContent.trim().slice(0, 30)))(document.activeElement)`

// outlined tells whether the focus can be seen.
const outlined = `(e => { const s = getComputedStyle(e); return e === document.body || s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 || e.matches("rect, g, svg a") })(document.activeElement)`

func TestTheKeyboardIsEnough(t *testing.T) {
	s := newScenario(t)
	b := openBrowser(t, s.bridge.Admin)
	b.screen(1280, 900, false)
	b.visit("/")
	// The first key leads past the menu.
	b.do(chromedp.KeyEvent(kb.Tab))
	if got := b.text(focused); got != "a #content" {
		t.Fatalf("the first focus is on %q", got)
	}
	if !eval[bool](b, `document.activeElement.getBoundingClientRect().left >= 0`) {
		t.Error("the link to skip the menu cannot be seen when it has the focus")
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	if got := b.text(focused); got != "main content" {
		t.Errorf("skipping the menu leads to %q", got)
	}
	// The menu, in its order.
	b.visit("/")
	b.do(chromedp.KeyEvent(kb.Tab))
	for _, want := range []string{"a /", "a /", "a /sync", "a /resources", "a /warnings", "a /graph", "a /check", "a /changes", "a /tools"} {
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := b.text(focused); got != want {
			t.Errorf("the focus is on %q, want %q", got, want)
		}
		if !eval[bool](b, outlined) {
			t.Errorf("the focus on %q cannot be seen", want)
		}
	}
	if path := b.follow(chromedp.KeyEvent(kb.Enter)); path != "/tools" {
		t.Errorf("Enter leads to %s", path)
	}
	b.shows("Log levels")
}

// tabTo goes on with the key Tab until an element has the focus.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	for range 200 {
		if eval[bool](b, `document.activeElement.matches(`+quote(selector)+`)`) {
			return
		}
		b.do(chromedp.KeyEvent(kb.Tab))
		if !eval[bool](b, outlined) {
			b.t.Errorf("the focus on %q cannot be seen", b.text(focused))
		}
	}
	b.t.Fatalf("%s cannot be reached with the keyboard", selector)
}

func quote(s string) string { return "`" + strings.ReplaceAll(s, "`", "") + "`" }

func TestFormsAreUsedWithTheKeyboard(t *testing.T) {
	s := newScenario(t)
	b := openBrowser(t, s.bridge.Admin)
	b.screen(1280, 900, false)
	b.visit("/resources")
	b.tabTo(`input[name=q]`)
	if path := b.follow(chromedp.KeyEvent("ratings"), chromedp.KeyEvent(kb.Enter)); path != "/resources" {
		t.Errorf("searching leads to %s", path)
	}
	b.shows("outbound|9080||ratings.default.svc.cluster.local")
	b.hides("outbound|9080||details.default.svc.cluster.local")
	// Into a resource and through what is on it.
	b.tabTo(`th a[href$="type=Cluster"]`)
	if path := b.follow(chromedp.KeyEvent(kb.Enter)); path != "/resource" {
		t.Errorf("Enter leads to %s", path)
	}
	b.tabTo(".code") // which scrolls with the arrow keys
	b.tabTo("summary")
	b.do(chromedp.KeyEvent(kb.Enter))
	if eval[bool](b, `document.activeElement.parentElement.open`) {
		t.Error("Enter does not close an object")
	}
	// A route check.
	b.visit("/check")
	b.tabTo(`input[name=host]`)
	b.do(chromedp.KeyEvent("reviews:9080"))
	b.tabTo(`textarea`)
	b.do(chromedp.KeyEvent("end-user: jason"))
	b.tabTo(`button`)
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.shows("VirtualService default/reviews", "127.0.1.12:9080", "Why not the others")
	// A log level: the letters of a choice choose it.
	b.visit("/tools")
	b.tabTo(`select[name=xds]`)
	b.do(chromedp.KeyEvent("error"))
	b.tabTo(`form.levels button`)
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.shows("The levels are as below.")
	if got := s.bridge.Ask(t, http.MethodPost, "logging"); !strings.Contains(got, "xds: error") {
		t.Errorf("levels: %s", got)
	}
}
