package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"meshbridge/testdata/conformance/harness"
)

// namespaceVariable names the directory of the programs in the test that runs in namespaces of its own.
const namespaceVariable = "SOAK_PROGRAMS"

// built are the programs, which are built once, outside of the namespaces.
var built programs

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(namespaceVariable); dir != "" {
		built = programsIn(dir)
		goleak.VerifyTestMain(m)
		return
	}
	dir, err := os.MkdirTemp("", "soak")
	if err == nil {
		err = build(context.Background(), dir)
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

func programsIn(dir string) programs {
	p := programs{
		Bridge: filepath.Join(dir, "meshbridge"), Istiod: filepath.Join(dir, "istiod"), Standin: filepath.Join(dir, "standin"),
		Skewed: filepath.Join(dir, "meshbridge-skewed"),
	}
	if _, err := os.Stat(p.Skewed); err != nil {
		p.Skewed = ""
	}
	return p
}

func build(ctx context.Context, dir string) error {
	if err := os.Chdir(".."); err != nil { // where harness builds from
		return err
	}
	root := filepath.Join("..", "..")
	binaries, err := harness.Build(ctx, dir)
	if err != nil {
		return err
	}
	standin, err := harness.BuildFrom(ctx, root, "./testdata/standin", dir)
	if err != nil {
		return err
	}
	built = programs{Bridge: binaries.Meshbridge, Istiod: binaries.Istiod, Standin: standin}
	if os.Getenv("SOAKCLOCK") != "off" {
		if built.Skewed, err = buildSkewed(ctx, root, dir); err != nil {
			return err
		}
	}
	return os.Chdir("soak")
}
