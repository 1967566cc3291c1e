package auth

import (
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
)

// The user and the role that etcd wants for authentication to be enabled. The role may do everything, and
// need not exist to be granted.
const (
	rootName = "root"
	rootRole = "root"
)

// View is all users and roles at one moment. It never changes.
type View struct {
	enabled  bool
	revision uint64
	users    map[string]*user
	roles    map[string][]*authpb.Permission // in the order of their keys; never changed in place
}

// user is a user in one View or several.
type user struct {
	roles      []string // sorted
	root       bool     // has the role root
	noPassword bool
	hasOptions bool // etcd tells users without options, which old versions made, from others
	secret     *secret
	allowed    permissions // what the roles other than root allow
}

// Identity is who a request comes from. The zero Identity is nobody.
type Identity struct {
	// User is the name. It need not be a user's: it can come from a certificate, or the user was deleted
	// since.
	User string
	// Revision is the auth revision that the identity was established at; 0 is nobody.
	Revision uint64
}

// IsNobody tells whether the request did not say who it comes from.
func (i Identity) IsNobody() bool { return i == Identity{} }

// Revision counts the changes of users, roles and permissions. The first is 1.
func (v *View) Revision() uint64 { return v.revision }

// Read fails unless the user may read all of [key, end). End is etcd's range_end: empty is key alone, and
// "\x00" everything from key on.
func (v *View) Read(who Identity, key, end []byte) error {
	return v.check(who, key, end, func(p *permissions) intervals { return p.read })
}

// Write is Read for writing.
func (v *View) Write(who Identity, key, end []byte) error {
	return v.check(who, key, end, func(p *permissions) intervals { return p.write })
}

func (v *View) check(who Identity, key, end []byte, kind func(*permissions) intervals) error {
	if who.Revision == 0 {
		return ErrUserEmpty
	}
	if who.Revision < v.revision {
		return ErrOldRevision
	}
	u := v.users[who.User]
	if u == nil || !u.root && !kind(&u.allowed).cover(key, end) {
		return ErrPermissionDenied
	}
	return nil
}

// Current fails if the identity is from another revision, older or, after a restart, newer. etcd wants it
// of whoever only reads.
func (v *View) Current(who Identity) error {
	if who.Revision != 0 && who.Revision != v.revision {
		return ErrOldRevision
	}
	return nil
}

// Root fails unless the user has the role root. As in etcd, the revision of the identity does not matter.
func (v *View) Root(who Identity) error {
	if who.User == "" {
		return ErrUserEmpty
	}
	u := v.users[who.User]
	switch {
	case u == nil:
		return ErrUserNotFound
	case !u.root:
		return ErrPermissionDenied
	}
	return nil
}

// HasRole tells whether there is such a user and it has the role.
func (v *View) HasRole(name, role string) bool {
	u := v.users[name]
	return u != nil && slices.Contains(u.roles, role)
}

// User returns the roles of a user, sorted.
func (v *View) User(name string) ([]string, error) {
	u := v.users[name]
	if u == nil {
		return nil, ErrUserNotFound
	}
	return slices.Clone(u.roles), nil
}

// Users returns the names of all users, sorted.
func (v *View) Users() []string { return slices.Sorted(maps.Keys(v.users)) }

// Role returns the permissions of a role, sorted by key. They must not be changed.
func (v *View) Role(name string) ([]*authpb.Permission, error) {
	granted, ok := v.roles[name]
	switch {
	case !ok:
		return nil, ErrRoleNotFound
	case name == rootRole:
		return []*authpb.Permission{{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}}}, nil
	}
	return slices.Clone(granted), nil
}

// Roles returns the names of all roles, sorted.
func (v *View) Roles() []string { return slices.Sorted(maps.Keys(v.roles)) }

// clone returns a copy that a change can be made to: of the maps, and not of what is in them.
func (v *View) clone() *View {
	c := *v
	c.users, c.roles = maps.Clone(v.users), maps.Clone(v.roles)
	return &c
}

// setRoles replaces a user by one with other roles. They must be sorted.
func (v *View) setRoles(name string, roles []string) {
	u := *v.users[name]
	u.roles = roles
	u.root = slices.Contains(roles, rootRole)
	var granted []*authpb.Permission
	for _, role := range roles {
		granted = append(granted, v.roles[role]...)
	}
	u.allowed = newPermissions(granted)
	v.users[name] = &u
}

// setPermissions replaces the permissions of a role, and with them what its users may do.
func (v *View) setPermissions(role string, granted []*authpb.Permission) {
	v.roles[role] = granted
	for name, u := range v.users {
		if slices.Contains(u.roles, role) {
			v.setRoles(name, u.roles)
		}
	}
}
