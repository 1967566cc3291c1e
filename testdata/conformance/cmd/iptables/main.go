// Command iptables is Istio's own istio-iptables, which istio-init runs: the rules are those of the Istio
// that the tests are for.
package main

import (
	"fmt"
	"os"

	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/cmd"
)

func main() {
	if err := cmd.GetCommand(log.DefaultOptions()).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
