package auth

import (
	"bytes"
	"log/slog"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
)

// RoleAdd adds a role without permissions.
func (a *Authority) RoleAdd(role string) error {
	return a.update(func(v *View) error {
		if role == "" {
			return ErrRoleEmpty
		}
		if _, ok := v.roles[role]; ok {
			return ErrRoleExists
		}
		v.roles[role] = nil
		v.revision++
		a.log.Info("role added", slog.String("role", role))
		return nil
	})
}

// RoleDelete deletes a role and takes it from its users. The role root cannot go while authentication is
// on.
func (a *Authority) RoleDelete(role string) error {
	return a.update(func(v *View) error {
		if v.enabled && role == rootRole {
			return ErrInvalidManagement
		}
		if _, ok := v.roles[role]; !ok {
			return ErrRoleNotFound
		}
		delete(v.roles, role)
		for name, u := range v.users {
			if slices.Contains(u.roles, role) {
				v.setRoles(name, without(u.roles, role))
			}
		}
		v.revision++
		a.log.Info("role deleted", slog.String("role", role))
		return nil
	})
}

// RoleGrantPermission allows a role to read, write or both, in the range of p.
func (a *Authority) RoleGrantPermission(role string, p *authpb.Permission) error {
	switch {
	case p == nil:
		return ErrPermissionNotGiven
	case !isValidRange(p.GetKey(), p.GetRangeEnd()):
		return ErrInvalidManagement
	}
	return a.update(func(v *View) error {
		granted, ok := v.roles[role]
		if !ok {
			return ErrRoleNotFound
		}
		added := &authpb.Permission{
			PermType: p.GetPermType(), Key: bytes.Clone(p.GetKey()), RangeEnd: bytes.Clone(p.GetRangeEnd()),
		}
		granted = slices.Clone(granted)
		// As in etcd, only the first permission with this key is looked at: a second one with another
		// end is not replaced by a grant of the same range but kept beside it.
		at, _ := slices.BinarySearchFunc(granted, p.GetKey(), func(g *authpb.Permission, key []byte) int {
			return bytes.Compare(g.GetKey(), key)
		})
		if at < len(granted) && sameRange(granted[at], p.GetKey(), p.GetRangeEnd()) {
			granted[at] = added
		} else {
			granted = append(granted, added)
			slices.SortStableFunc(granted, func(a, b *authpb.Permission) int { return bytes.Compare(a.GetKey(), b.GetKey()) })
		}
		v.setPermissions(role, granted)
		v.revision++
		a.log.Info("permission granted", slog.String("role", role), slog.String("type", p.GetPermType().String()),
			slog.String("key", string(p.GetKey())), slog.String("range_end", string(p.GetRangeEnd())))
		return nil
	})
}

// RoleRevokePermission takes what was granted for exactly this range from a role.
func (a *Authority) RoleRevokePermission(role string, key, end []byte) error {
	return a.update(func(v *View) error {
		granted, ok := v.roles[role]
		if !ok {
			return ErrRoleNotFound
		}
		kept := slices.DeleteFunc(slices.Clone(granted), func(g *authpb.Permission) bool { return sameRange(g, key, end) })
		if len(kept) == len(granted) {
			return ErrPermissionNotGranted
		}
		v.setPermissions(role, kept)
		v.revision++
		a.log.Info("permission revoked", slog.String("role", role),
			slog.String("key", string(key)), slog.String("range_end", string(end)))
		return nil
	})
}

func sameRange(p *authpb.Permission, key, end []byte) bool {
	return bytes.Equal(p.GetKey(), key) && bytes.Equal(p.GetRangeEnd(), end)
}
