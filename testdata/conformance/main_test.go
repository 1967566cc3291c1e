package conformance

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"meshbridge/testdata/conformance/harness"
)

// binaries are built once, by TestMain.
var binaries harness.Binaries

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if binaries, err = harness.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}
