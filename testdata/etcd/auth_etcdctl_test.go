package etcd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An administrator's session with etcdctl prints the same on both servers.
func TestEtcdctlAdministersUsersAndRoles(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startEtcd(t, authFlags()...), startMeshbridge(t, authFlags()...)
	var leases [2]string
	for i, do := range []step{
		{args: "auth status"},
		{args: "auth enable"},
		{args: "user add root:root"},
		{args: "user add alice:alice"},
		{args: "user add alice:again"},
		{args: "user add bob --new-user-password bob"},
		{args: "user add cert --no-password"},
		{args: "user list"},
		{args: "user get alice"},
		{args: "user get nobody"},
		{args: "role add reader"},
		{args: "role add reader"},
		{args: "role add writer"},
		{args: "role list"},
		{args: "role grant-permission reader read /a /c"},
		{args: "role grant-permission reader read /key"},
		{args: "role grant-permission reader readwrite /prefix/ --prefix"},
		{args: "role grant-permission writer write /from --from-key"},
		{args: "role grant-permission writer write /z /a"},
		{args: "role grant-permission none read /a"},
		{args: "role get reader"},
		{args: "role get writer"},
		{args: "role get none"},
		{args: "user grant-role alice reader writer"},
		{args: "user grant-role alice none"},
		{args: "user grant-role nobody reader"},
		{args: "user grant-role bob writer"},
		{args: "user get alice --detail"},
		{args: "user revoke-role alice writer"},
		{args: "user revoke-role alice writer"},
		{args: "auth enable"},
		{args: "auth status"},
		{args: "auth status --user root:root"},
		{args: "get /a"},
		{args: "get /a --user alice:alice"},
		{args: "get /a --user alice:wrong"},
		{args: "get /a --user cert:cert"},
		{args: "get /a --user nobody:nobody"},
		{args: "get / --prefix --user alice:alice"},
		{args: "put /a 1 --user alice:alice"},
		{args: "put /prefix/a 1 --user alice:alice"},
		{args: "get /prefix/ --prefix --user alice:alice"},
		{args: "del /prefix/ --prefix --user alice:alice"},
		{args: "put /from/a 1 --user bob:bob"},
		{args: "put /from/a 2 --prev-kv --user bob:bob"},
		{args: "get /from/a --user bob:bob"},
		{args: "txn --user alice:alice", stdin: "version(\"/a\") = \"0\"\n\nput /prefix/t 1\n\nput /from/t 1\n\n"},
		{args: "txn --user alice:alice", stdin: "version(\"/a\") = \"0\"\n\nput /prefix/t 1\n\nget /key\n\n"},
		{args: "compact 2 --user alice:alice"},
		{args: "endpoint hashkv --user alice:alice"},
		{args: "alarm list --user alice:alice"},
		{args: "alarm list"},
		{args: "member list"},
		{args: "lease grant 600 --user alice:alice"},
		{args: "put /prefix/leased 1 --lease {lease} --user alice:alice"},
		{args: "lease revoke {lease} --user bob:bob"},
		{args: "lease timetolive {lease} --keys --user bob:bob"},
		{args: "lease revoke {lease} --user alice:alice"},
		{args: "user list --user alice:alice"},
		{args: "user get alice --user alice:alice"},
		{args: "user get bob --user alice:alice"},
		{args: "role get reader --user alice:alice"},
		{args: "role get writer --user alice:alice"},
		{args: "user passwd alice --interactive=false --user root:root", stdin: "changed\n"},
		{args: "get /a --user alice:alice"},
		{args: "get /a --user alice:changed"},
		{args: "role revoke-permission reader /a /c --user root:root"},
		{args: "role revoke-permission reader /a /c --user root:root"},
		{args: "get /a --user alice:changed"},
		{args: "user delete root --user root:root"},
		{args: "role delete root --user root:root"},
		{args: "user revoke-role root root --user root:root"},
		{args: "role delete reader --user root:root"},
		{args: "user get alice --user root:root"},
		{args: "user delete alice --user root:root"},
		{args: "user delete alice --user root:root"},
		{args: "role get root --user root:root"},
		{args: "auth disable --user alice:changed"},
		{args: "auth disable --user root:root"},
		{args: "auth disable"},
		{args: "get /a --user root:root"},
		{args: "user list"},
		{args: "auth status"},
	} {
		// It logs errors of the server as JSON however it prints; the words are the server's.
		if !strings.HasPrefix(do.args, "lease grant") {
			do.format = "simple"
		}
		want := etcd.etcdctl(t, do, &leases[0])
		got := meshbridge.etcdctl(t, do, &leases[1])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("step %d, etcdctl %s (-etcd +meshbridge):\n%s", i+1, do.args, diff)
		}
	}
}
