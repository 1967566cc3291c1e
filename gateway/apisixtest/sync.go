package apisixtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// runPerPrefix is APISIX since 3.2: a snapshot of the prefix, then one watch of it from the revision
// after the snapshot's.
func (c *Client) runPerPrefix(ctx context.Context) {
	revision := c.loadSnapshot(ctx)
	for ctx.Err() == nil {
		c.loadDirs(ctx)
		revision = c.watchPrefix(ctx, revision)
	}
}

// loadSnapshot reads the whole prefix and returns the revision to watch from.
func (c *Client) loadSnapshot(ctx context.Context) int64 {
	if result, err := c.readRange(ctx, c.prefix, prefixEnd(c.prefix)); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, d := range c.dirs {
			// A directory of which the snapshot has nothing is read on its own.
			if kvs := below(result.kvs, d.key); len(kvs) > 0 {
				d.load(kvs, result.revision)
			}
		}
		c.changedNow()
		return result.revision + 1
	}
	// APISIX was started before its etcd: the revision comes from a key that need not exist.
	for ctx.Err() == nil {
		result, err := c.readRange(ctx, c.prefix+"/", "")
		if err == nil {
			return result.revision + 1
		}
		c.pause(ctx)
	}
	return 0
}

func below(kvs []keyValue, dir string) (in []keyValue) {
	for _, kv := range kvs {
		if strings.HasPrefix(kv.key, dir+"/") {
			in = append(in, kv)
		}
	}
	return in
}

// loadDirs reads the directories that have to be read, until all are.
func (c *Client) loadDirs(ctx context.Context) {
	for _, d := range c.dirs {
		for ctx.Err() == nil && c.needsReload(d) {
			if err := c.loadDir(ctx, d); err != nil {
				c.pause(ctx)
			}
		}
	}
}

func (c *Client) needsReload(d *dir) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.needReload
}

func (c *Client) loadDir(ctx context.Context, d *dir) error {
	result, err := c.readRange(ctx, d.key, prefixEnd(d.key))
	if err != nil {
		return err
	}
	c.mu.Lock()
	stale := d.load(result.kvs, result.revision)
	c.changedNow()
	c.mu.Unlock()
	if stale != "" {
		c.fault("%s is stale for ever: its value changed and its mod_revision did not", stale)
	}
	return nil
}

// watchPrefix follows one watch stream to its end and returns the revision to go on from.
func (c *Client) watchPrefix(ctx context.Context, revision int64) int64 {
	w, err := c.openWatch(ctx, c.prefix+"/", revision)
	if err != nil {
		c.pause(ctx)
		return revision
	}
	defer w.close()
	c.countWatch()
	var current int64 // the newest revision that the server has spoken of
	for {
		m, err := w.next()
		switch {
		case err != nil || m.Result == nil:
			return revision
		case m.Result.Created && !m.Result.Canceled:
			current = m.revision()
			continue
		case m.Result.Canceled:
			compact, ok := m.compactRevision()
			if !ok {
				return revision
			}
			c.reloadAll("compacted", isGone(revision, compact, current),
				fmt.Sprintf("waited for %d, compact_revision %d, current %d", revision, compact, current))
			return compact
		}
		got := m.revision()
		switch {
		case got == 0:
			c.fault("receive an invalid revision header")
			return revision
		case c.traits.noticesRestart && got < revision:
			c.reloadAll("restarted", false, fmt.Sprintf("waited for %d, got %d", revision, got))
			return revision
		case got > revision:
			revision = got + 1
		}
		current = max(current, got)
		c.applyFrame(m, got)
	}
}

// isGone tells whether a watcher that waits for the revision had to be sent away with the compact
// revision, by a server that was at current when the watch was created.
func isGone(revision, compact, current int64) bool {
	return revision < compact || revision > current+1
}

func (m *message) compactRevision() (int64, bool) {
	if m.Result.CompactRevision == nil {
		return 0, false
	}
	n, err := m.Result.CompactRevision.Int64()
	return n, err == nil
}

// applyFrame hands a frame to every directory that has not seen its revision.
func (c *Client) applyFrame(m *message, revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.dirs {
		if revision <= d.prevIndex {
			continue
		}
		if len(m.events) == 0 {
			c.faults = append(c.faults, fmt.Sprintf("%s: bad argument #1 to 'ipairs': no events at revision %d", d.key, revision))
			continue
		}
		d.apply(m.events)
	}
	c.changedNow()
}

func (c *Client) reloadAll(reason string, needed bool, detail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reloads = append(c.reloads, Reload{Reason: reason, Needed: needed, Detail: detail})
	for _, d := range c.dirs {
		d.needReload = true
	}
}

func (c *Client) countWatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
}

// runPerDir is APISIX 2: every directory reads and watches for itself.
func (c *Client) runPerDir(ctx context.Context) {
	var dirs sync.WaitGroup
	defer dirs.Wait()
	for _, d := range c.dirs {
		dirs.Go(func() {
			for ctx.Err() == nil {
				if c.needsReload(d) {
					if err := c.loadDir(ctx, d); err != nil {
						c.pause(ctx)
						continue
					}
				}
				if err := c.waitDir(ctx, d); err != nil {
					c.pause(ctx)
				}
			}
		})
	}
}

// waitDir watches a directory until the first batch of events, and closes the connection.
func (c *Client) waitDir(ctx context.Context, d *dir) error {
	c.mu.Lock()
	start := d.prevIndex + 1
	c.mu.Unlock()
	w, err := c.openWatch(ctx, d.key, start)
	if err != nil {
		return err
	}
	defer w.close()
	c.countWatch()
	// It skips one message without events, the first one that is.
	m, err := w.next()
	var current int64
	if err == nil && m.Result != nil && len(m.events) == 0 {
		current = m.revision()
		m, err = w.next()
	}
	if err != nil || m.Result == nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if compact, ok := m.compactRevision(); ok {
		c.reloads = append(c.reloads, Reload{
			Reason: "compacted", Needed: isGone(start, compact, current),
			Detail: fmt.Sprintf("%s: waited for %d, compact_revision %d, current %d", d.key, start, compact, current),
		})
		d.needReload = true
		return nil
	}
	if len(m.events) == 0 {
		c.faults = append(c.faults, d.key+": bad argument #1 to 'ipairs'")
		return nil
	}
	d.apply(m.events)
	c.changedNow()
	return nil
}
