// Package reap buries processes whose parents have died. As process 1 of a container the bridge inherits
// them: workers of an APISIX that was killed, whatever APISIX's command line program leaves behind. Nobody
// else would wait for them, and each holds a process number for as long as the container lives.
//
// What os/exec has started is not touched: a process that something else has waited for would look to
// exec.Cmd.Wait as if it had never been. So a Reaper starts the program's own children, and waits for them.
package reap
