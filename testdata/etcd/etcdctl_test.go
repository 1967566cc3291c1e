package etcd

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// step is one call of etcdctl. "{lease}" stands for the lease granted last.
type step struct {
	args   string
	stdin  string
	format string // of the output; empty is json
}

// The same calls of etcdctl must print the same on both servers, apart from
// the identities of cluster, member and lease.
func TestEtcdctlCannotTellTheServersApart(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]step{
		"put, get and delete": {
			{args: "put /apisix/routes/1 one"},
			{args: "put /apisix/routes/2 two --prev-kv"},
			{args: "put /apisix/routes/1 uno --prev-kv"},
			{args: "put /apisix/upstreams/1 up"},
			{args: "get /apisix/routes/1"},
			{args: "get /apisix/ --prefix"},
			{args: "get /apisix/ --prefix --keys-only"},
			{args: "get /apisix/ --prefix --count-only"},
			{args: "get /apisix/ --prefix --limit 2"},
			{args: "get /apisix/ --prefix --sort-by MODIFY --order DESCEND"},
			{args: "get /apisix/routes/1 --rev 2"},
			{args: "get /apisix/routes/1 /apisix/routes/2"},
			{args: "get /apisix/routes/2 --from-key"},
			{args: "get /absent"},
			{args: "get /apisix/routes/1 --rev 99"},
			{args: "put /apisix/routes/9 x --ignore-value"},
			{args: "del /apisix/routes/1 --prev-kv"},
			{args: "del /apisix/routes/ --prefix"},
			{args: "del /absent"},
			{args: "get / --prefix"},
		},
		"transactions": {
			{args: "put k v1"},
			{args: "txn", stdin: "mod(\"k\") = \"2\"\n\nput k v2\nget k\n\nget k\n\n"},
			{args: "txn", stdin: "mod(\"k\") = \"2\"\n\nput k v3\n\nget k\ndel absent\n\n"},
			{args: "txn", stdin: "value(\"k\") = \"v2\"\nver(\"k\") > \"1\"\ncreate(\"absent\") = \"0\"\n\ndel k\nput other x\n\n\n"},
			{args: "get / --from-key"},
			{args: "txn", stdin: "\nput k a\nput k b\n\n\n"},
		},
		"leases": {
			{args: "lease grant 600"},
			{args: "put /leased/1 a --lease {lease}"},
			{args: "put /leased/2 b --lease {lease}"},
			{args: "put /free c"},
			{args: "get / --prefix"},
			{args: "lease list"},
			{args: "lease keep-alive {lease} --once"},
			{args: "lease revoke {lease}"},
			{args: "get / --prefix"},
			{args: "lease revoke {lease}"},
			{args: "lease timetolive {lease}"},
			{args: "lease timetolive {lease} --keys"},
			{args: "put x y --lease 7fffffffffffff00"},
		},
		"compaction": {
			{args: "put k 1"},
			{args: "put k 2"},
			{args: "put k 3"},
			{args: "compact 3"},
			{args: "get k --rev 2"},
			{args: "get k --rev 3"},
			{args: "compact 3"},
			{args: "compact 99"},
			{args: "endpoint hashkv"},
			{args: "endpoint hashkv", format: "simple"},
			{args: "endpoint hashkv", format: "table"},
		},
		"what people read": {
			{args: "put k v", format: "simple"},
			{args: "put k w --prev-kv", format: "simple"},
			{args: "put binary", stdin: "\x00\x01\n", format: "simple"},
			{args: "get k", format: "simple"},
			{args: "get k --print-value-only", format: "simple"},
			{args: "get k --hex", format: "simple"},
			{args: "get k --keys-only", format: "simple"},
			{args: "get k --count-only", format: "fields"},
			{args: "get k", format: "fields"},
			{args: "get k --consistency s", format: "simple"},
			{args: "txn -i", stdin: "mod(\"k\") > \"0\"\n\nput k x\nget k\n\n\n", format: "simple"},
			{args: "txn", stdin: "lease(\"k\") = \"0\"\n\ndel k\n\n\n", format: "simple"},
			{args: "txn", stdin: "nonsense\n\n", format: "simple"},
			{args: "del k --prev-kv", format: "simple"},
			{args: "lease grant 600", format: "simple"},
			{args: "put leased x --lease {lease}", format: "simple"},
			{args: "lease timetolive {lease} --keys", format: "simple"},
			{args: "lease list", format: "simple"},
			{args: "lease keep-alive --once {lease}", format: "simple"},
			{args: "lease revoke {lease}", format: "simple"},
			{args: "lease timetolive {lease}", format: "simple"},
			{args: "lease keep-alive --once {lease}", format: "simple"},
			{args: "compaction 4 --physical", format: "simple"},
			{args: "get k --rev 3", format: "simple"},
			{args: "get k --rev 1000", format: "simple"},
			{args: "put k x --ignore-value", format: "simple"},
			{args: "endpoint health", format: "simple"},
			{args: "endpoint health", format: "table"},
			{args: "move-leader 1", format: "simple"},
			{args: "member remove 1", format: "simple"},
			{args: "lock l echo held", format: "simple"},
			{args: "get k --rev 0 --from-key --limit 1", format: "simple"},
			{args: "del --prefix ", format: "simple"},
		},
		"state": {
			{args: "endpoint health"},
			{args: "alarm list"},
			{args: "defrag"},
			{args: "auth status"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd, meshbridge := startBoth(t)
			var leases [2]string
			for i, step := range steps {
				want := etcd.etcdctl(t, step, &leases[0])
				got := meshbridge.etcdctl(t, step, &leases[1])
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("step %d, etcdctl %s (-etcd +meshbridge):\n%s", i+1, step.args, diff)
				}
			}
		})
	}
}

var grantedLease = regexp.MustCompile(`"ID":(\d+)|lease ([0-9a-f]+) granted`)

// leaseOf is the id, in hexadecimal, that a grant has printed.
func leaseOf(t *testing.T, output string) string {
	t.Helper()
	found := grantedLease.FindStringSubmatch(output)
	if found == nil {
		t.Fatalf("no lease in %q", output)
	}
	if found[2] != "" {
		return found[2]
	}
	var id int64
	if _, err := fmt.Sscan(found[1], &id); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%016x", id)
}

// etcdctl runs one call and returns its output, without what may differ.
func (s server) etcdctl(t *testing.T, do step, lease *string) string {
	t.Helper()
	format := cmp.Or(do.format, "json")
	args := append([]string{"-w", format, "--endpoints", s.address}, strings.Fields(strings.ReplaceAll(do.args, "{lease}", *lease))...)
	cmd := exec.Command(programs.etcdctl, args...)
	cmd.Stdin = strings.NewReader(do.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	failed := cmd.Run() != nil
	if strings.HasPrefix(do.args, "lease grant") {
		*lease = leaseOf(t, stdout.String())
	}
	return fmt.Sprintf("failed %t\n%s\n%s", failed, normalise(stdout.String(), s.address, *lease), errorText(stderr.String(), s.address))
}

var (
	identity   = regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|id|lease)":-?\d+`)
	took       = regexp.MustCompile(`"took":"[^"]*"|took [0-9.]+\w+|took = [0-9.]+\w+|remaining\(\d+s\)| *[0-9.]+(ms|µs) `)
	fields     = regexp.MustCompile(`"(ClusterID|MemberID|RaftTerm)" : \d+`)
	dashes     = regexp.MustCompile(`-{4,}| {3,}`)
	jsonErrors = regexp.MustCompile(`"error":"([^"]*)"`)
)

// normalise drops identities and durations, and formats the JSON.
func normalise(output, address, lease string) string {
	output = identity.ReplaceAllString(output, `"$1":0`)
	output = took.ReplaceAllString(output, `"took":0`)
	output = fields.ReplaceAllString(output, `"$1" : 0`)
	output = dashes.ReplaceAllString(output, "  ") // what is left out changes the width of tables
	output = strings.ReplaceAll(output, address, "ADDRESS")
	if lease != "" {
		output = strings.ReplaceAll(output, lease, "LEASE")
	}
	var value any
	if json.Unmarshal([]byte(output), &value) != nil {
		return output
	}
	formatted, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return output
	}
	return string(formatted)
}

// errorText keeps the servers' words of what etcdctl logs about an error.
func errorText(stderr, address string) string {
	var b strings.Builder
	for line := range strings.Lines(stderr) {
		if found := jsonErrors.FindStringSubmatch(line); found != nil {
			line = found[1] + "\n"
		} else if strings.HasPrefix(line, "{") {
			continue // a log line about nothing the server said
		}
		b.WriteString(strings.ReplaceAll(line, address, "ADDRESS"))
	}
	return b.String()
}

func TestEtcdctlWatchReplaysHistoryAndFollows(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	var outputs []string
	for _, s := range []server{etcd, meshbridge} {
		var lease string
		for _, args := range []string{"put /a/1 x", "put /b/1 other", "put /a/2 y", "del /a/1"} {
			s.etcdctl(t, step{args: args}, &lease)
		}
		lines := s.watch(t, "watch /a/ --prefix --rev 2 --prev-kv", 14, func() {
			s.etcdctl(t, step{args: "put /b/2 other"}, &lease)
			s.etcdctl(t, step{args: "put /a/3 z"}, &lease)
		})
		outputs = append(outputs, strings.Join(lines, "\n"))
	}
	if diff := gocmp.Diff(outputs[0], outputs[1]); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
	if !strings.HasSuffix(outputs[1], "PUT\n/a/3\nz") {
		t.Errorf("the last event is not the latest put:\n%s", outputs[1])
	}
}

// watch runs etcdctl until it has printed its first lines; live is called when
// the first of them has come.
func (s server) watch(t *testing.T, args string, lines int, live func()) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs.etcdctl, append(strings.Fields(args), "--endpoints", s.address)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var got []string
	for scanner := bufio.NewScanner(stdout); len(got) < lines && scanner.Scan(); {
		got = append(got, scanner.Text())
		if len(got) == 1 {
			live()
		}
	}
	if len(got) < lines {
		t.Fatalf("%s: %d lines, want %d: %q", s.name, len(got), lines, got)
	}
	return got
}
