package auth

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/authpb"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestEnableNeedsRootWithItsRole(t *testing.T) {
	a := newAuthority(t, Config{})
	if err := a.Enable(); !errors.Is(err, ErrRootUserNotExist) {
		t.Errorf("without root: %v", err)
	}
	must(t, a.UserAdd(t.Context(), NewUser{Name: "root", Password: "pw"}))
	if err := a.Enable(); !errors.Is(err, ErrRootRoleNotExist) {
		t.Errorf("without the role: %v", err)
	}
	must(t, a.UserGrantRole("root", "root")) // though there is no such role
	revision := a.All().Revision()
	must(t, a.Enable())
	must(t, a.Enable())
	if got := a.All().Revision(); got != revision {
		t.Errorf("enabling made revision %d of %d", got, revision)
	}
	for name, err := range map[string]error{
		"delete user": a.UserDelete("root"), "delete role": a.RoleDelete("root"), "revoke": a.UserRevokeRole("root", "root"),
	} {
		if !errors.Is(err, ErrInvalidManagement) {
			t.Errorf("%s while enabled: %v", name, err)
		}
	}
	must(t, a.Disable())
	must(t, a.UserDelete("root"))
}

func TestPermissionsFollowRolesAndGrants(t *testing.T) {
	a := enabled(t, Config{})
	token := login(t, a, "alice")
	may := func() (read, write bool) {
		t.Helper()
		v := a.View()
		who, err := a.Identify(v, token)
		must(t, err)
		return v.Read(who, []byte("a"), []byte("c")) == nil, v.Write(who, []byte("b"), nil) == nil
	}
	if read, write := may(); !read || write {
		t.Errorf("a reader may read: %t, write: %t", read, write)
	}
	must(t, a.RoleGrantPermission("reader", permission(authpb.Permission_READWRITE, "a", "c")))
	if read, write := may(); !read || !write {
		t.Errorf("granted more, it may read: %t, write: %t", read, write)
	}
	must(t, a.RoleRevokePermission("reader", []byte("a"), []byte("c")))
	if read, write := may(); read || write {
		t.Errorf("all revoked, it may read: %t, write: %t", read, write)
	}
	must(t, a.UserGrantRole("alice", "root"))
	if read, write := may(); !read || !write {
		t.Errorf("as root it may read: %t, write: %t", read, write)
	}
	must(t, a.UserRevokeRole("alice", "root"))
	must(t, a.RoleDelete("reader"))
	if roles, err := a.All().User("alice"); err != nil || len(roles) > 0 {
		t.Errorf("the role is gone and alice has %q, %v", roles, err)
	}
}

func TestTokensDieWithWhatTheyStandFor(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, a *Authority) error{
		"password": func(t *testing.T, a *Authority) error {
			t.Helper()
			return a.UserChangePassword(t.Context(), "alice", "new", "")
		},
		"user": func(_ *testing.T, a *Authority) error { return a.UserDelete("alice") },
		"authentication": func(_ *testing.T, a *Authority) error {
			return errors.Join(a.Disable(), a.Enable())
		},
		"state": func(_ *testing.T, a *Authority) error { return a.Restore(a.State()) },
	} {
		t.Run(name, func(t *testing.T) {
			a := enabled(t, Config{})
			token := login(t, a, "alice")
			must(t, change(t, a))
			if who, err := a.Identify(a.View(), token); !errors.Is(err, ErrInvalidToken) {
				t.Errorf("%+v, %v", who, err)
			}
		})
	}
}

// A simple token lives as long as it is used, and not much longer.
func TestSimpleTokenExpiresAfterItsLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := enabled(t, Config{SimpleTokenTTL: time.Minute})
		token := login(t, a, "alice")
		if letters, index, ok := strings.Cut(token, "."); !ok || len(letters) != tokenLetters || index == "" {
			t.Errorf("token %q", token)
		}
		for range 5 {
			time.Sleep(50 * time.Second) //nolint:forbidigo // the clock is synctest's
			if _, err := a.Identify(a.View(), token); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute + ttlResolution) //nolint:forbidigo // the clock is synctest's
		if _, err := a.Identify(a.View(), token); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("after its time: %v", err)
		}
		login(t, a, "root")
		if n := len(a.tokens.(*simpleTokens).tokens); n != 1 {
			t.Errorf("%d tokens are kept, one is alive", n)
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	const most = 10
	s := newSimpleTokens(time.Hour, most)
	first, err := s.issue("a", 1)
	must(t, err)
	for range most {
		_, err := s.issue("a", 1)
		must(t, err)
	}
	if _, ok := s.resolve(first, 1); ok || len(s.tokens) != most || s.byUse.Len() != most {
		t.Errorf("%d tokens are kept, the first among them: %t", len(s.tokens), ok)
	}
}

func TestPasswords(t *testing.T) {
	a := enabled(t, Config{})
	must(t, a.UserAdd(t.Context(), NewUser{Name: "cert", NoPassword: true}))
	for name, test := range map[string]struct {
		user, password string
		want           error
	}{
		"right":        {"alice", "alice", nil},
		"right again":  {"alice", "alice", nil},
		"wrong":        {"alice", "bob", ErrFailed},
		"empty":        {"alice", "", ErrFailed},
		"nobody":       {"", "", ErrFailed},
		"unknown user": {"bob", "bob", ErrFailed},
		"no password":  {"cert", "", ErrNoPassword},
	} {
		if _, err := a.Authenticate(t.Context(), test.user, test.password); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	hash := "JDJhJDA0JEVPaFYyc0hPb2tSbVVJNjBSZGNTZy5SWS9WSm1lM1dhQ2d6SnFoU3pKeGRtR0JHUC95NGF5"
	for name, test := range map[string]struct {
		user, password, hashed string
		want                   error
	}{
		"of nobody":      {"bob", "x", "", ErrUserNotFound},
		"a hash":         {"alice", "", hash, nil},
		"no hash":        {"alice", "", "?", ErrNoPassword},
		"nothing at all": {"alice", "", "", nil},
	} {
		if err := a.UserChangePassword(t.Context(), test.user, test.password, test.hashed); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	must(t, a.UserChangePassword(t.Context(), "alice", "", ""))
	if _, err := a.Authenticate(t.Context(), "alice", "alice"); !errors.Is(err, ErrFailed) {
		t.Errorf("the password is gone, and logging in answers %v", err)
	}
	if err := a.UserAdd(t.Context(), NewUser{Name: "long", Password: strings.Repeat("x", 73)}); err == nil {
		t.Error("a password that bcrypt cannot tell from another is accepted")
	}
}

// A crowd at the door is sent away when it gets too large, and none of it waits with a lock.
func TestCrowdOfLoginsIsBounded(t *testing.T) {
	a := enabled(t, Config{})
	const most = 20
	a.hasher = newHasher(bcrypt.MinCost, 1, most)
	a.hasher.turns <- struct{}{} // it is busy
	var crowd sync.WaitGroup
	results := make(chan error, 2*most)
	for range 2 * most {
		crowd.Go(func() {
			_, err := a.Authenticate(t.Context(), "alice", "guess")
			results <- err
		})
	}
	for range most {
		if err := <-results; !errors.Is(err, ErrBusy) {
			t.Fatalf("one too many: %v", err)
		}
	}
	if err := a.RoleAdd("meanwhile"); err != nil || a.View() == nil {
		t.Errorf("nothing else works: %v", err)
	}
	<-a.hasher.turns
	crowd.Wait()
	for range most {
		if err := <-results; !errors.Is(err, ErrFailed) {
			t.Fatalf("one that waited: %v", err)
		}
	}
}

// A write is executed under the permissions that it was checked against.
func TestPinKeepsPermissionsFromChanging(t *testing.T) {
	a := enabled(t, Config{})
	view, release := a.Pin()
	changed := make(chan error, 1)
	go func() { changed <- a.RoleDelete("reader") }()
	if now := a.View(); now != view {
		t.Error("permissions changed under a pin")
	}
	release()
	must(t, <-changed)
	if a.View() == view {
		t.Error("the change is lost")
	}
}

func TestStateSurvives(t *testing.T) {
	a := enabled(t, Config{})
	must(t, a.UserAdd(t.Context(), NewUser{Name: "cert", NoPassword: true}))
	state := a.State()
	b := newAuthority(t, Config{})
	must(t, b.Restore(state))
	if diff := cmp.Diff(state, b.State(), protocmp.Transform()); diff != "" {
		t.Errorf("(-saved +restored):\n%s", diff)
	}
	who, err := b.Identify(b.View(), login(t, b, "alice"))
	must(t, err)
	if err := b.View().Read(who, []byte("a"), []byte("c")); err != nil {
		t.Error(err)
	}
	if err := b.View().Write(who, []byte("a"), nil); !errors.Is(err, ErrPermissionDenied) {
		t.Error(err)
	}
}

// A state that nobody could administer is refused, and leaves what there was.
func TestRestoreRefusesWhatIsBroken(t *testing.T) {
	root := &authpb.User{Name: []byte("root"), Roles: []string{"root"}}
	for name, state := range map[string]State{
		"enabled without root":     {Enabled: true},
		"enabled without its role": {Enabled: true, Users: []*authpb.User{{Name: []byte("root")}}},
		"user twice":               {Users: []*authpb.User{root, root}},
		"user without name":        {Users: []*authpb.User{{}}},
		"role without name":        {Roles: []*authpb.Role{{}}},
		"role twice":               {Roles: []*authpb.Role{{Name: []byte("a")}, {Name: []byte("a")}}},
	} {
		a := enabled(t, Config{})
		if err := a.Restore(state); err == nil {
			t.Errorf("%s: accepted", name)
		}
		login(t, a, "alice")
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"cost":         {BcryptCost: 3},
		"lifetime":     {SimpleTokenTTL: -1},
		"token":        {Token: "simpel"},
		"simple":       {Token: "simple,ttl=3s"},
		"jwt alone":    {Token: "jwt"},
		"jwt without":  {Token: "jwt,sign-method=RS256"},
		"jwt none":     {Token: "jwt,sign-method=none"},
		"jwt key":      {Token: "jwt,sign-method=RS256,priv-key=/absent"},
		"jwt ttl":      {Token: "jwt,sign-method=RS256,ttl=soon"},
		"jwt option":   {Token: "jwt,sign-method=RS256,keys=a"},
		"jwt twice":    {Token: "jwt,sign-method=RS256,sign-method=RS256"},
		"jwt no value": {Token: "jwt,sign-method"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
