// Command meshbridge makes an unmodified Apache APISIX a data plane of an unmodified Istio.
package main

import (
	"os"

	"meshbridge/cmd/internal/cli"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(cli.Execute(version, os.Args, os.Stdout, os.Stderr))
}
