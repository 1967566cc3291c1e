package page

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a tab that shows the pages of one bridge.
type browser struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // chromedp keeps the tab in it
	origin string

	mu sync.Mutex
	// complaints are what the console says, and requests to elsewhere; guarded by mu.
	complaints []string
}

// chromium returns the program, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("REQUIRE_CHROMIUM") != "" {
		t.Fatal("there is no chromium in the PATH, and REQUIRE_CHROMIUM is set")
	}
	t.Skip("there is no chromium in the PATH: apt-get install chromium")
	return ""
}

// openBrowser starts a browser. Whatever it complains about fails the test.
func openBrowser(t *testing.T, admin string) *browser {
	t.Helper()
	b := &browser{t: t, origin: "http://" + admin}
	ctx, cancel := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(chromedp.ExecPath(chromium(t))))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("closing the browser: %v", err)
		}
		cancel()
	})
	b.ctx = ctx
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.complaints {
			t.Errorf("the browser complains: %s", c)
		}
	})
	return b
}

// hear notes what no page may cause.
func (b *browser) hear(event any) {
	complaint := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		complaint = string(e.Entry.Level) + ": " + e.Entry.Text + " " + e.Entry.URL
	case *runtime.EventConsoleAPICalled:
		complaint = "a script writes to the console"
	case *runtime.EventExceptionThrown:
		complaint = "a script fails: " + e.ExceptionDetails.Text
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.origin+"/") {
			complaint = "a request to elsewhere: " + e.Request.URL
		}
	}
	if complaint != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.complaints = append(b.complaints, complaint)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// visit opens a page.
func (b *browser) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.origin + path))
}

// follow does what leads to another page, and returns its path.
func (b *browser) follow(steps ...chromedp.Action[chromedp.Void]) string {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
	return b.text("location.pathname")
}

// screen sets the size of the window and whether people want it dark.
func (b *browser) screen(width, height int64, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// eval returns the value of an expression in the page. The page itself has no scripts.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func (b *browser) text(expression string) string {
	b.t.Helper()
	return eval[string](b, expression)
}

// shows fails unless the text of the page has all parts.
func (b *browser) shows(parts ...string) {
	b.t.Helper()
	text := b.text("document.body.innerText")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			b.t.Errorf("%s does not show %q:\n%.3000s", b.text("location.href"), part, text)
		}
	}
}

// hides fails if the text of the page has the part.
func (b *browser) hides(part string) {
	b.t.Helper()
	if strings.Contains(b.text("document.body.innerText"), part) {
		b.t.Errorf("%s shows %q", b.text("location.href"), part)
	}
}
