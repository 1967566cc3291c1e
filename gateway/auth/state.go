package auth

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	"google.golang.org/protobuf/proto"
)

// State is what an Authority knows, tokens and passwords in clear excepted: what etcd keeps in the buckets
// auth, authUsers and authRoles.
type State struct {
	Enabled  bool
	Revision uint64
	// Users and Roles are sorted by name.
	Users []*authpb.User
	Roles []*authpb.Role
}

func emptyView() *View {
	return &View{revision: 1, users: map[string]*user{}, roles: map[string][]*authpb.Permission{}}
}

// State returns everything as of one moment.
func (a *Authority) State() State {
	v := a.view.Load()
	s := State{Enabled: v.enabled, Revision: v.revision}
	for _, name := range v.Users() {
		u := v.users[name]
		out := &authpb.User{Name: []byte(name), Password: slices.Clone(u.secret.hash), Roles: slices.Clone(u.roles)}
		if u.hasOptions {
			out.Options = &authpb.UserAddOptions{NoPassword: u.noPassword}
		}
		s.Users = append(s.Users, out)
	}
	for _, name := range v.Roles() {
		out := &authpb.Role{Name: []byte(name)}
		for _, p := range v.roles[name] {
			out.KeyPermission = append(out.KeyPermission, proto.CloneOf(p))
		}
		s.Roles = append(s.Roles, out)
	}
	return s
}

// Restore replaces everything and forgets all tokens. A state that is inconsistent, or that nobody could
// administer, is refused and changes nothing.
func (a *Authority) Restore(s State) error {
	v := emptyView()
	v.enabled, v.revision = s.Enabled, max(s.Revision, 1)
	for _, r := range s.Roles {
		name := string(r.GetName())
		if name == "" {
			return fmt.Errorf("restoring roles: %w", ErrRoleEmpty)
		}
		if _, ok := v.roles[name]; ok {
			return fmt.Errorf("restoring role %q: %w", name, ErrRoleExists)
		}
		granted := make([]*authpb.Permission, 0, len(r.GetKeyPermission()))
		for _, p := range r.GetKeyPermission() {
			granted = append(granted, proto.CloneOf(p))
		}
		v.roles[name] = granted
	}
	for _, u := range s.Users {
		name := string(u.GetName())
		if name == "" {
			return fmt.Errorf("restoring users: %w", ErrUserEmpty)
		}
		if v.users[name] != nil {
			return fmt.Errorf("restoring user %q: %w", name, ErrUserExists)
		}
		v.users[name] = &user{
			secret:     &secret{hash: slices.Clone(u.GetPassword())},
			hasOptions: u.GetOptions() != nil, noPassword: u.GetOptions().GetNoPassword(),
		}
		roles := slices.Clone(u.GetRoles())
		slices.Sort(roles)
		v.setRoles(name, slices.Compact(roles))
	}
	if root := v.users[rootName]; v.enabled && (root == nil || !root.root) {
		return errors.New("restoring: authentication is enabled and there is no user root with the role root")
	}
	return a.update(func(current *View) error {
		*current = *v
		a.tokens.clear()
		return nil
	})
}
