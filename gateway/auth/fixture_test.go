package auth

import (
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"golang.org/x/crypto/bcrypt"
)

// newAuthority makes an authority that hashes quickly.
func newAuthority(tb testing.TB, c Config) *Authority {
	tb.Helper()
	c.BcryptCost = bcrypt.MinCost
	a, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// enabled is newAuthority with root and user alice, who has the role reader, which is for [a, c).
func enabled(tb testing.TB, c Config) *Authority {
	tb.Helper()
	a := newAuthority(tb, c)
	must(tb, a.EnableWithRoot(tb.Context(), "root"))
	must(tb, a.UserAdd(tb.Context(), NewUser{Name: "alice", Password: "alice"}))
	must(tb, a.RoleAdd("reader"))
	must(tb, a.RoleGrantPermission("reader", permission(authpb.Permission_READ, "a", "c")))
	must(tb, a.UserGrantRole("alice", "reader"))
	return a
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func permission(kind authpb.Permission_Type, key, end string) *authpb.Permission {
	return &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}
}

// login returns a token.
func login(tb testing.TB, a *Authority, name string) string {
	tb.Helper()
	token, err := a.Authenticate(tb.Context(), name, name)
	must(tb, err)
	return token
}
