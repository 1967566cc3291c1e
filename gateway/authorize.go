package gateway

import (
	"context"
	"net/http"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"meshbridge/gateway/auth"
)

// grant is what the sender of a request may do. The zero grant is for everything: authentication is off.
type grant struct {
	view *auth.View // nil while authentication is off
	who  auth.Identity
}

// requireUser fails unless the request comes from a user, or authentication is off. Its error is a
// wire error.
func (s *Server) requireUser(ctx context.Context) error {
	g, err := s.grant(ctx)
	if err != nil {
		return err
	}
	return g.user()
}

// requireRoot fails unless the request comes from a user with the role root, or authentication is off.
// Its error is a wire error.
func (s *Server) requireRoot(ctx context.Context) error {
	g, err := s.grant(ctx)
	if err != nil {
		return err
	}
	return g.root()
}

// grant tells who sent a request and what that user may do now. A request that says nothing comes from
// nobody, who is refused later; a token that is not valid is the wire error.
func (s *Server) grant(ctx context.Context) (grant, error) {
	return s.grantUnder(ctx, s.auth.View())
}

// pin is grant for a write: until release is called, permissions do not change.
func (s *Server) pin(ctx context.Context) (g grant, release func(), err error) {
	view, release := s.auth.Pin()
	g, err = s.grantUnder(ctx, view)
	return g, release, err
}

func (s *Server) grantUnder(ctx context.Context, view *auth.View) (grant, error) {
	if view == nil {
		return grant{}, nil
	}
	if token, ok := tokenOf(ctx); ok {
		who, err := s.auth.Identify(view, token)
		return grant{view, who}, wireError(err)
	}
	if name, ok := commonNameOf(ctx); ok && s.requiresCertificates() {
		return grant{view, auth.Identity{User: name, Revision: view.Revision()}}, nil
	}
	return grant{view: view}, nil
}

// reading runs read while it is permitted: once more if permissions changed meanwhile.
func (s *Server) reading(ctx context.Context, permit func(grant) error, read func() error) error {
	for {
		g, err := s.grant(ctx)
		if err != nil {
			return err
		}
		if err := permit(g); err != nil {
			return err
		}
		if err := g.current(); err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
		if s.auth.View() == g.view {
			return nil
		}
	}
}

// mayRead is for reading [key, end), watching included, by the sender of a request.
func (s *Server) mayRead(ctx context.Context, key, end []byte) error {
	g, err := s.grant(ctx)
	if err != nil {
		return err
	}
	return g.read(key, end)
}

// tokenOf returns the token of a request, which can be in either field. A "Bearer " before it is no part
// of it.
func tokenOf(ctx context.Context) (token string, ok bool) {
	for _, field := range [...]string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if values := metadata.ValueFromIncomingContext(ctx, field); len(values) > 0 {
			return strings.TrimPrefix(values[0], "Bearer "), true
		}
	}
	return "", false
}

// withToken returns the context of an HTTP request with its token where gRPC has it, as the generated
// handlers do for theirs.
func (s *Server) withToken(r *http.Request) context.Context {
	if !s.auth.Enabled() {
		return r.Context() // where nobody looks for it
	}
	fields := metadata.MD{}
	for _, name := range [...]string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if values := r.Header.Values("Grpc-Metadata-" + name); len(values) > 0 {
			fields[name] = values
		}
	}
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		fields[rpctypes.TokenFieldNameSwagger] = values
	}
	if len(fields) == 0 {
		return r.Context()
	}
	return metadata.NewIncomingContext(r.Context(), fields)
}

// The methods of grant fail unless the sender may do something. Their errors are wire errors.

// user is for everybody but nobody.
func (g grant) user() error {
	if g.view != nil && g.who.IsNobody() {
		return rpctypes.ErrGRPCUserEmpty
	}
	return nil
}

// root is for those with the role root.
func (g grant) root() error {
	if g.view == nil {
		return nil
	}
	return wireError(g.view.Root(g.who))
}

// current is for those whose token is of the present revision, and for nobody.
func (g grant) current() error {
	if g.view == nil {
		return nil
	}
	return wireError(g.view.Current(g.who))
}

// isRoot is root for those who go on without.
func (g grant) isRoot() bool { return g.view == nil || g.view.Root(g.who) == nil }

// read is for reading [key, end), watching included.
func (g grant) read(key, end []byte) error {
	if g.view == nil {
		return nil
	}
	return wireError(g.view.Read(g.who, key, end))
}

// write is for changing what is in [key, end).
func (g grant) write(key, end []byte) error {
	if g.view == nil {
		return nil
	}
	return wireError(g.view.Write(g.who, key, end))
}

// mayPut is for a put: its lease may not hold keys that the sender may not write, or the sender could delete
// them with it.
func (s *Server) mayPut(g grant, r *pb.PutRequest) error {
	if g.view == nil {
		return nil
	}
	if err := g.write(r.GetKey(), nil); err != nil {
		return err
	}
	if err := s.mayUseLease(g, r.GetLease(), g.write); err != nil {
		return err
	}
	if r.GetPrevKv() {
		return g.read(r.GetKey(), nil)
	}
	return nil
}

// mayUseLease is for what may be done with a lease if it may be done with every key that is attached.
func (s *Server) mayUseLease(g grant, id int64, may func(key, end []byte) error) error {
	if g.isRoot() {
		return nil
	}
	lease, _ := s.store.TimeToLive(id, true)
	return g.leaseKeys(lease.Keys, may)
}

// leaseKeys is for what may be done with each of the keys of a lease.
func (g grant) leaseKeys(keys [][]byte, may func(key, end []byte) error) error {
	if g.isRoot() {
		return nil
	}
	for _, key := range keys {
		if err := may(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// delete is for a deletion.
func (g grant) delete(r *pb.DeleteRangeRequest) error {
	if err := g.write(r.GetKey(), r.GetRangeEnd()); err != nil || !r.GetPrevKv() {
		return err
	}
	return g.read(r.GetKey(), r.GetRangeEnd())
}

// mayTxn is for all conditions and for the operations of both branches: which of them is executed may
// depend on what the sender may not see.
func (s *Server) mayTxn(g grant, r *pb.TxnRequest) error {
	if g.view == nil {
		return nil
	}
	for _, c := range r.GetCompare() {
		if err := g.read(c.GetKey(), c.GetRangeEnd()); err != nil {
			return err
		}
	}
	for _, branch := range [...][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := s.mayOp(g, op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) mayOp(g grant, op *pb.RequestOp) error {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return g.read(r.RequestRange.GetKey(), r.RequestRange.GetRangeEnd())
	case *pb.RequestOp_RequestPut:
		return s.mayPut(g, r.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return g.delete(r.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return s.mayTxn(g, r.RequestTxn)
	}
	return nil
}

// envelope is how many bytes etcd's replication adds to a request for who sent it.
func (g grant) envelope() int {
	if g.who.IsNobody() {
		return 0
	}
	const tags = 2 // one byte each
	return tags + protowire.SizeBytes(len(g.who.User)) + protowire.SizeVarint(g.who.Revision)
}
