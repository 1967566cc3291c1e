package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// maxWaiting bounds how many requests wait for a password to be hashed. With etcd's cost it is the work
// of a minute.
const maxWaiting = 1024

// secret is what a user's password is checked against. It is shared by all views until the password
// changes.
type secret struct {
	hash []byte // bcrypt's; of anything else nothing is the password
	// verified is the digest of the password, once it was seen. Clients log in every few minutes, and to
	// hash the same password again would cost them and the server 50 ms each time.
	verified atomic.Pointer[[sha256.Size]byte]
}

// hasher hashes and compares passwords, in few goroutines at a time.
type hasher struct {
	cost    int
	digests [32]byte      // the key of digests, which are of no use without it
	turns   chan struct{} // capacity: how many work; they wait for a place in it
	waiting atomic.Int64
	most    int64 // that wait
}

func newHasher(cost, parallel int, most int64) *hasher {
	h := &hasher{cost: cost, turns: make(chan struct{}, parallel), most: most}
	_, _ = rand.Read(h.digests[:]) // never fails
	return h
}

// turn waits for permission to burn CPU.
func (h *hasher) turn(ctx context.Context) (done func(), err error) {
	if h.waiting.Add(1) > h.most {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.turns <- struct{}{}:
		return func() { <-h.turns }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("auth: waiting to hash a password: %w", ctx.Err())
	}
}

// hash makes the hash of a password. One of more than 72 bytes fails with bcrypt's error.
func (h *hasher) hash(ctx context.Context, password string) ([]byte, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return bcrypt.GenerateFromPassword([]byte(password), h.cost)
}

// verify fails with ErrFailed if the password is another.
func (h *hasher) verify(ctx context.Context, s *secret, password string) error {
	mac := hmac.New(sha256.New, h.digests[:])
	mac.Write([]byte(password))
	digest := [sha256.Size]byte(mac.Sum(nil))
	if seen := s.verified.Load(); seen != nil && hmac.Equal(seen[:], digest[:]) {
		return nil
	}
	done, err := h.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if bcrypt.CompareHashAndPassword(s.hash, []byte(password)) != nil {
		return ErrFailed
	}
	s.verified.Store(&digest)
	return nil
}

// Authenticate returns a token for a user with its password.
func (a *Authority) Authenticate(ctx context.Context, name, password string) (string, error) {
	token, err := a.authenticate(ctx, name, password)
	if errors.Is(err, ErrFailed) || errors.Is(err, ErrNoPassword) {
		a.log.LogAttrs(ctx, slog.LevelInfo, "login refused", slog.String("user", name))
	}
	return token, err
}

func (a *Authority) authenticate(ctx context.Context, name, password string) (string, error) {
	for {
		v := a.View()
		if v == nil {
			return "", ErrNotEnabled
		}
		u := v.users[name]
		switch {
		case u == nil:
			return "", ErrFailed
		case u.noPassword:
			return "", ErrNoPassword
		}
		if err := a.hasher.verify(ctx, u.secret, password); err != nil {
			return "", err
		}
		if token, ok, err := a.issue(name, u.secret); ok {
			return token, err
		}
	}
}

// issue makes a token, unless the password was changed since it was checked.
func (a *Authority) issue(name string, checked *secret) (token string, ok bool, err error) {
	a.mu.Lock() // or a token could outlive the change of a password
	defer a.mu.Unlock()
	v := a.View()
	if v == nil || v.users[name] == nil || v.users[name].secret != checked {
		return "", false, nil
	}
	token, err = a.tokens.issue(name, v.revision)
	return token, true, err
}

// Identify tells whose token it is, or fails with ErrInvalidToken.
func (a *Authority) Identify(v *View, token string) (Identity, error) {
	who, ok := a.tokens.resolve(token, v.revision)
	if !ok {
		return Identity{}, ErrInvalidToken
	}
	return who, nil
}

// EnableWithRoot makes a user root with the role root and a password, and turns authentication on.
func (a *Authority) EnableWithRoot(ctx context.Context, password string) error {
	if err := a.UserAdd(ctx, NewUser{Name: rootName, Password: password}); err != nil {
		return err
	}
	return errors.Join(a.RoleAdd(rootRole), a.UserGrantRole(rootName, rootRole), a.Enable())
}
