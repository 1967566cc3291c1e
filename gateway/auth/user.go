package auth

import (
	"context"
	"encoding/base64"
	"log/slog"
	"slices"
)

// NewUser is a user to add.
type NewUser struct {
	Name, Password string
	// NoPassword users cannot log in with a password; a certificate can name them.
	NoPassword bool
}

// UserAdd adds a user without roles.
func (a *Authority) UserAdd(ctx context.Context, add NewUser) error {
	s := new(secret)
	if !add.NoPassword {
		var err error
		if s.hash, err = a.hasher.hash(ctx, add.Password); err != nil {
			return err
		}
	}
	return a.update(func(v *View) error {
		switch {
		case add.Name == "":
			return ErrUserEmpty
		case v.users[add.Name] != nil:
			return ErrUserExists
		}
		v.users[add.Name] = &user{secret: s, noPassword: add.NoPassword, hasOptions: true}
		v.revision++
		a.log.LogAttrs(ctx, slog.LevelInfo, "user added", slog.String("user", add.Name))
		return nil
	})
}

// UserDelete deletes a user and its tokens. The user root cannot go while authentication is on.
func (a *Authority) UserDelete(name string) error {
	return a.update(func(v *View) error {
		switch {
		case v.enabled && name == rootName:
			return ErrInvalidManagement
		case v.users[name] == nil:
			return ErrUserNotFound
		}
		delete(v.users, name)
		v.revision++
		a.tokens.forget(name)
		a.log.Info("user deleted", slog.String("user", name))
		return nil
	})
}

// UserChangePassword sets the password of a user and deletes its tokens. A password of "" takes the hash
// instead, which is bcrypt's in base64 and may be "": nobody can log in then. Users without password keep
// having none.
func (a *Authority) UserChangePassword(ctx context.Context, name, password, hashed string) error {
	s := new(secret)
	var badHash error
	if password != "" {
		var err error
		if s.hash, err = a.hasher.hash(ctx, password); err != nil {
			return err
		}
	} else if s.hash, badHash = base64.StdEncoding.DecodeString(hashed); badHash != nil {
		badHash = ErrNoPassword // this is what etcd says
	}
	return a.update(func(v *View) error {
		old := v.users[name]
		if old == nil {
			return ErrUserNotFound
		}
		changed := *old
		if old.noPassword {
			changed.secret = new(secret)
		} else if changed.secret = s; badHash != nil {
			return badHash
		}
		v.users[name] = &changed
		v.revision++
		a.tokens.forget(name)
		a.log.LogAttrs(ctx, slog.LevelInfo, "password changed", slog.String("user", name))
		return nil
	})
}

// UserGrantRole gives a role to a user. The role root need not exist. To grant a role again changes
// nothing.
func (a *Authority) UserGrantRole(name, role string) error {
	return a.update(func(v *View) error {
		u := v.users[name]
		if u == nil {
			return ErrUserNotFound
		}
		if _, ok := v.roles[role]; !ok && role != rootRole {
			return ErrRoleNotFound
		}
		at, found := slices.BinarySearch(u.roles, role)
		if found {
			return nil
		}
		v.setRoles(name, slices.Insert(slices.Clone(u.roles), at, role))
		v.revision++
		a.log.Info("role granted", slog.String("user", name), slog.String("role", role))
		return nil
	})
}

// UserRevokeRole takes a role from a user. The user root keeps the role root while authentication is on.
func (a *Authority) UserRevokeRole(name, role string) error {
	return a.update(func(v *View) error {
		u := v.users[name]
		switch {
		case v.enabled && name == rootName && role == rootRole:
			return ErrInvalidManagement
		case u == nil:
			return ErrUserNotFound
		case !slices.Contains(u.roles, role):
			return ErrRoleNotGranted
		}
		v.setRoles(name, without(u.roles, role))
		v.revision++
		a.log.Info("role revoked", slog.String("user", name), slog.String("role", role))
		return nil
	})
}

// without returns a copy of roles without one of them.
func without(roles []string, role string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == role })
}
