package gateway

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"meshbridge/gateway/auth"
)

// authService implements etcdserverpb.Auth.
type authService struct {
	pb.UnimplementedAuthServer
	*endpoint
}

// current is the header of a response.
func (s *authService) current() *pb.ResponseHeader { return s.header(s.store.Revision()) }

// administer fails unless the sender may do what only administrators may.
func (s *authService) administer(ctx context.Context, r proto.Message) error {
	g, err := s.grant(ctx)
	if err != nil {
		return err
	}
	if err := s.checkSize(r, g); err != nil {
		return err
	}
	return g.root()
}

// change is administer and then a change, unless clients may make none.
func (s *authService) change(ctx context.Context, r proto.Message, change func() error) (*pb.ResponseHeader, error) {
	if err := s.administer(ctx, r); err != nil {
		return nil, err
	}
	if s.auth.Fixed() {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	if err := change(); err != nil {
		return nil, wireError(err)
	}
	return s.current(), nil
}

// AuthEnable implements etcdserverpb.Auth.
func (s *authService) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	header, err := s.change(ctx, r, s.auth.Enable)
	if err != nil {
		return nil, err
	}
	return &pb.AuthEnableResponse{Header: header}, nil
}

// AuthDisable implements etcdserverpb.Auth.
func (s *authService) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	header, err := s.change(ctx, r, s.auth.Disable)
	if err != nil {
		return nil, err
	}
	return &pb.AuthDisableResponse{Header: header}, nil
}

// AuthStatus implements etcdserverpb.Auth.
func (s *authService) AuthStatus(ctx context.Context, r *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if err := s.administer(ctx, r); err != nil {
		return nil, err
	}
	return &pb.AuthStatusResponse{
		Header: s.current(), Enabled: s.auth.Enabled(), AuthRevision: s.auth.All().Revision(),
	}, nil
}

// Authenticate implements etcdserverpb.Auth.
func (s *authService) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	token, err := s.auth.Authenticate(ctx, r.GetName(), r.GetPassword())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.AuthenticateResponse{Header: s.current(), Token: token}, nil
}

// UserAdd implements etcdserverpb.Auth. A hashed password is what members of a cluster tell each other;
// as in etcd, a client's is not looked at.
func (s *authService) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	header, err := s.change(ctx, r, func() error {
		return s.auth.UserAdd(ctx, auth.NewUser{
			Name: r.GetName(), Password: r.GetPassword(), NoPassword: r.GetOptions().GetNoPassword(),
		})
	})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserAddResponse{Header: header}, nil
}

// UserGet implements etcdserverpb.Auth. Users may ask about themselves.
func (s *authService) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	g, err := s.grant(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.root(); err != nil && r.GetName() != g.who.User {
		return nil, err
	}
	roles, err := s.auth.All().User(r.GetName())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.AuthUserGetResponse{Header: s.current(), Roles: roles}, nil
}

// UserList implements etcdserverpb.Auth.
func (s *authService) UserList(ctx context.Context, r *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	if err := s.administer(ctx, r); err != nil {
		return nil, err
	}
	return &pb.AuthUserListResponse{Header: s.current(), Users: s.auth.All().Users()}, nil
}

// UserDelete implements etcdserverpb.Auth.
func (s *authService) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.UserDelete(r.GetName()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserDeleteResponse{Header: header}, nil
}

// UserChangePassword implements etcdserverpb.Auth.
func (s *authService) UserChangePassword(
	ctx context.Context, r *pb.AuthUserChangePasswordRequest,
) (*pb.AuthUserChangePasswordResponse, error) {
	header, err := s.change(ctx, r, func() error {
		return s.auth.UserChangePassword(ctx, r.GetName(), r.GetPassword(), r.GetHashedPassword())
	})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserChangePasswordResponse{Header: header}, nil
}

// UserGrantRole implements etcdserverpb.Auth.
func (s *authService) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.UserGrantRole(r.GetUser(), r.GetRole()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserGrantRoleResponse{Header: header}, nil
}

// UserRevokeRole implements etcdserverpb.Auth.
func (s *authService) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.UserRevokeRole(r.GetName(), r.GetRole()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserRevokeRoleResponse{Header: header}, nil
}

// RoleAdd implements etcdserverpb.Auth.
func (s *authService) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.RoleAdd(r.GetName()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleAddResponse{Header: header}, nil
}

// RoleGet implements etcdserverpb.Auth. Users may ask about their own roles.
func (s *authService) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	g, err := s.grant(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.root(); err != nil && !g.view.HasRole(g.who.User, r.GetRole()) {
		return nil, err
	}
	granted, err := s.auth.All().Role(r.GetRole())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.AuthRoleGetResponse{Header: s.current(), Perm: granted}, nil
}

// RoleList implements etcdserverpb.Auth.
func (s *authService) RoleList(ctx context.Context, r *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	if err := s.administer(ctx, r); err != nil {
		return nil, err
	}
	return &pb.AuthRoleListResponse{Header: s.current(), Roles: s.auth.All().Roles()}, nil
}

// RoleDelete implements etcdserverpb.Auth.
func (s *authService) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.RoleDelete(r.GetRole()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleDeleteResponse{Header: header}, nil
}

// RoleGrantPermission implements etcdserverpb.Auth.
func (s *authService) RoleGrantPermission(
	ctx context.Context, r *pb.AuthRoleGrantPermissionRequest,
) (*pb.AuthRoleGrantPermissionResponse, error) {
	header, err := s.change(ctx, r, func() error { return s.auth.RoleGrantPermission(r.GetName(), r.GetPerm()) })
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleGrantPermissionResponse{Header: header}, nil
}

// RoleRevokePermission implements etcdserverpb.Auth.
func (s *authService) RoleRevokePermission(
	ctx context.Context, r *pb.AuthRoleRevokePermissionRequest,
) (*pb.AuthRoleRevokePermissionResponse, error) {
	header, err := s.change(ctx, r, func() error {
		return s.auth.RoleRevokePermission(r.GetRole(), r.GetKey(), r.GetRangeEnd())
	})
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleRevokePermissionResponse{Header: header}, nil
}
