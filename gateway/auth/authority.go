package auth

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Config configures New. The zero Config is etcd's default.
type Config struct {
	// Token is how tokens are made and checked, as in etcd's --auth-token: "simple", or "jwt" with the
	// options pub-key, priv-key, sign-method and ttl. Empty means "simple".
	Token string
	// SimpleTokenTTL is how long a simple token lives after its last use; 0 means 5 minutes.
	SimpleTokenTTL time.Duration
	// BcryptCost is the cost of hashing a password, 4 to 31; 0 means 10.
	BcryptCost int
	// Fixed refuses every change that a client asks for with ErrPermissionDenied. It is for a server
	// whose users, or that it has none, are not its clients' business.
	Fixed bool
	// Logger receives changes and refused logins; nil discards them.
	Logger *slog.Logger
}

// Authority keeps users, roles and tokens. All methods may be called concurrently.
type Authority struct {
	fixed  bool
	log    *slog.Logger
	hasher *hasher
	tokens tokens

	view atomic.Pointer[View]
	mu   sync.Mutex   // held by whoever replaces the view or issues a token
	pins sync.RWMutex // read-held by Pin, held while the view is replaced
}

// New makes an authority without users, where authentication is off.
func New(c Config) (*Authority, error) {
	if c.BcryptCost == 0 {
		c.BcryptCost = bcrypt.DefaultCost
	}
	if c.BcryptCost < bcrypt.MinCost || c.BcryptCost > bcrypt.MaxCost {
		return nil, fmt.Errorf("auth: bcrypt cost %d: want %d to %d", c.BcryptCost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	if c.SimpleTokenTTL == 0 {
		c.SimpleTokenTTL = defaultTokenTTL
	}
	if c.SimpleTokenTTL < 0 {
		return nil, fmt.Errorf("auth: lifetime of tokens %v: must be positive", c.SimpleTokenTTL)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	tokens, err := newTokens(c.Token, c.SimpleTokenTTL)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		fixed: c.Fixed, log: c.Logger, tokens: tokens,
		hasher: newHasher(c.BcryptCost, max(1, runtime.GOMAXPROCS(0)/2), maxWaiting),
	}
	a.view.Store(emptyView())
	return a, nil
}

// Fixed tells whether clients are refused every change.
func (a *Authority) Fixed() bool { return a.fixed }

// Enabled tells whether authentication is on.
func (a *Authority) Enabled() bool { return a.view.Load().enabled }

// View returns what is in force while authentication is on, and nil while it is off, when everything is
// allowed to everybody.
func (a *Authority) View() *View {
	if v := a.view.Load(); v.enabled {
		return v
	}
	return nil
}

// All returns what is known of users and roles, whether authentication is on or off.
func (a *Authority) All() *View { return a.view.Load() }

// Pin returns the View and keeps it from being replaced until release is called, which must be soon. A
// write that is checked and executed meanwhile is executed with the permissions it was checked against.
// Like View it returns nil while authentication is off; then nothing is kept, and release does nothing.
func (a *Authority) Pin() (v *View, release func()) {
	if !a.Enabled() {
		return nil, func() {}
	}
	a.pins.RLock()
	return a.View(), a.pins.RUnlock
}

// update replaces the view by what change makes of it, unless it fails. If the revision counts the
// change is up to it.
func (a *Authority) update(change func(v *View) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.view.Load().clone()
	if err := change(next); err != nil {
		return err
	}
	a.publish(next)
	return nil
}

// publish replaces the view. The caller holds mu.
func (a *Authority) publish(v *View) {
	a.pins.Lock()
	defer a.pins.Unlock()
	a.view.Store(v)
}

// Enable turns authentication on. It takes a user root with the role root. Enabling twice is no error.
func (a *Authority) Enable() error {
	return a.update(func(v *View) error {
		root := v.users[rootName]
		switch {
		case v.enabled:
			return nil
		case root == nil:
			return ErrRootUserNotExist
		case !root.root:
			return ErrRootRoleNotExist
		}
		v.enabled = true // which is no new revision
		a.log.Info("authentication enabled")
		return nil
	})
}

// Disable turns authentication off and forgets all tokens. Disabling twice is no error.
func (a *Authority) Disable() error {
	return a.update(func(v *View) error {
		if !v.enabled {
			return nil
		}
		v.enabled = false
		v.revision++
		a.tokens.clear()
		a.log.Info("authentication disabled")
		return nil
	})
}
