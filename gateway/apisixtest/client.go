package apisixtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client is one worker of an APISIX. Set the fields before Run; all methods may be called concurrently.
type Client struct {
	// Pause is what the client waits where APISIX waits for seconds before it tries again; 0 means
	// 20 ms, so that tests are quick.
	Pause time.Duration
	// WatchTimeout is how long a watch may be silent before the client opens a new one; 0 means what
	// the version does: 30 or 50 s.
	WatchTimeout time.Duration
	// BeforeRead, when set, is called before each read of a watch stream. It may block: that is a
	// worker which is busy.
	BeforeRead func()
	// User and Password are what the client authenticates with; without a user it does not.
	User, Password string
	// TokenAge is the age from which the client gets a new token; 0 means 3 minutes.
	TokenAge time.Duration

	host     string
	prefix   string
	traits   traits
	requests atomic.Int64

	authenticating sync.Mutex
	credentials    credentials // guarded by authenticating

	mu      sync.Mutex
	dirs    []*dir                // guarded by mu
	conns   map[net.Conn]struct{} // guarded by mu
	pool    []*conn               // kept-alive connections; guarded by mu
	changed chan struct{}         // closed at the next change of what Snapshot returns; guarded by mu
	reloads []Reload              // guarded by mu
	faults  []string              // guarded by mu
	opened  int                   // watches; guarded by mu
}

// Reload is one time that the client read a directory, or all of them, again.
type Reload struct {
	// Reason is "compacted", "restarted" (the server sent a smaller revision) or "error".
	Reason string
	// Needed tells whether what the client wanted was gone, or from another life of the server. A
	// reload that is not needed is the server's fault.
	Needed bool
	// Detail are the revisions that it was decided by.
	Detail string
}

// New makes a client of the given version for a server at baseURL ("http://host:port"). The prefix is
// APISIX's deployment.etcd.prefix, usually "/apisix".
func New(version, baseURL, prefix string) (*Client, error) {
	traits, err := traitsOf(version)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("apisixtest: %w", err)
	}
	if u.Scheme != "http" || u.Port() == "" {
		return nil, fmt.Errorf("apisixtest: %q is not http://host:port", baseURL)
	}
	c := &Client{
		host: u.Host, prefix: strings.TrimSuffix(prefix, "/"), traits: traits,
		conns: make(map[net.Conn]struct{}), changed: make(chan struct{}),
	}
	for _, name := range traits.dirs {
		c.dirs = append(c.dirs, &dir{key: c.prefix + "/" + name, traits: &c.traits, needReload: true})
	}
	return c, nil
}

// Run is the life of the worker. It returns when ctx ends, after its connections were closed.
func (c *Client) Run(ctx context.Context) error {
	if c.Pause == 0 {
		c.Pause = 20 * time.Millisecond
	}
	stop := context.AfterFunc(ctx, c.Disconnect)
	defer stop()
	defer c.Disconnect()
	if c.traits.watchPerDir {
		c.runPerDir(ctx)
	} else {
		c.runPerPrefix(ctx)
	}
	return nil
}

// Disconnect breaks every connection that the client has, as a network can.
func (c *Client) Disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
	c.pool = nil
}

// Snapshot returns the objects that APISIX would have loaded, by their keys.
func (c *Client) Snapshot() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot()
}

func (c *Client) snapshot() map[string]string {
	objects := make(map[string]string)
	for _, d := range c.dirs {
		for key, kv := range d.items {
			objects[key] = string(kv.value)
		}
	}
	return objects
}

// WaitFor waits until what Snapshot returns satisfies the condition. The error is that of ctx.
func (c *Client) WaitFor(ctx context.Context, condition func(objects map[string]string) bool) error {
	for {
		c.mu.Lock()
		objects, changed := c.snapshot(), c.changed
		c.mu.Unlock()
		if condition(objects) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reloads returns every time that the client read again what it had.
func (c *Client) Reloads() []Reload {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Reload(nil), c.reloads...)
}

// NeedlessReloads returns those reloads that were the server's fault.
func (c *Client) NeedlessReloads() []Reload {
	var needless []Reload
	for _, r := range c.Reloads() {
		if !r.Needed {
			needless = append(needless, r)
		}
	}
	return needless
}

// Faults returns what would have been an error inside APISIX, or a silent loss: an event lost, a value
// stale, a frame that its code cannot take.
func (c *Client) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.faults...)
}

// Watches returns how many watch streams were opened.
func (c *Client) Watches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

func (c *Client) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *Client) timeout() time.Duration {
	if c.WatchTimeout > 0 {
		return c.WatchTimeout
	}
	return c.traits.watchTimeout
}

// changedNow wakes WaitFor. The caller holds mu.
func (c *Client) changedNow() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// pause waits before another try.
func (c *Client) pause(ctx context.Context) {
	timer := time.NewTimer(c.Pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
