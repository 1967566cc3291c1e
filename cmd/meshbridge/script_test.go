package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"meshbridge/cmd/internal/cli"
)

func TestMain(m *testing.M) {
	run := func() { os.Exit(cli.Execute("v0.0.0-test", os.Args, os.Stdout, os.Stderr)) }
	testscript.Main(m, map[string]func(){"meshbridge": run, "pilot-agent": run})
}

// TestScripts runs the binary as users do; testdata/script has one scenario per file.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join(root, "testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("ISTIOD", filepath.Join(root, "testdata", "istiod"))
			e.Setenv("APISIX_SCHEMA", os.Getenv("APISIX_SCHEMA"))
			return nil
		},
		Condition: func(c string) (bool, error) { return c == "schema" && os.Getenv("APISIX_SCHEMA") != "", nil },
	})
}
