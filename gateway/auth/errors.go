package auth

import "errors"

// Errors. The gateway maps most of them to etcd's code and text; those that etcd has no code for are sent
// with the text that they have here.
var (
	ErrRootUserNotExist     = errors.New("auth: root user does not exist")
	ErrRootRoleNotExist     = errors.New("auth: root user does not have root role")
	ErrUserExists           = errors.New("auth: user already exists")
	ErrUserEmpty            = errors.New("auth: user name is empty")
	ErrUserNotFound         = errors.New("auth: user not found")
	ErrRoleExists           = errors.New("auth: role already exists")
	ErrRoleNotFound         = errors.New("auth: role not found")
	ErrRoleEmpty            = errors.New("auth: role name is empty")
	ErrPermissionNotGiven   = errors.New("auth: permission not given")
	ErrFailed               = errors.New("auth: authentication failed, invalid user ID or password")
	ErrNoPassword           = errors.New("auth: authentication failed, password was given for no password user")
	ErrPermissionDenied     = errors.New("auth: permission denied")
	ErrRoleNotGranted       = errors.New("auth: role is not granted to the user")
	ErrPermissionNotGranted = errors.New("auth: permission is not granted to the role")
	ErrNotEnabled           = errors.New("auth: authentication is not enabled")
	ErrOldRevision          = errors.New("auth: revision in header is old")
	ErrInvalidToken         = errors.New("auth: invalid auth token")
	ErrInvalidManagement    = errors.New("auth: invalid auth management")
	ErrVerifyOnly           = errors.New("auth: token signing attempted with verify-only key")
	// ErrBusy means that too many passwords are waiting to be hashed.
	ErrBusy = errors.New("auth: too many requests")
)
