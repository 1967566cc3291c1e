// Package page opens the status page of a bridge on a real istiod in a real browser: Debian's Chromium, headless.
//
//	go test ./page -screenshots ../../docs/images   # the pictures of docs/status-page.md
package page

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"meshbridge/testdata/conformance/harness"
)

var screenshots = flag.String("screenshots", "", "`directory` to write pictures of the views to")

// binaries are built once, by TestMain.
var binaries harness.Binaries

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "page")
	if err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build(dir string) (err error) {
	if err := os.Chdir(".."); err != nil { // where harness builds from
		return err
	}
	if binaries, err = harness.Build(context.Background(), dir); err != nil {
		return err
	}
	return os.Chdir("page")
}
