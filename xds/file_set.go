package xds

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// fileSet is the state of the files under a path.
type fileSet struct {
	path      string
	files     map[string]fileState
	listError error
	complete  bool   // an Update that was Complete has been made
	last      Update // the newest
}

type fileState struct {
	sum     [sha256.Size]byte // of the bytes last read; zero if they could not be read
	content fileContent
	err     error // why those bytes do not count
	loaded  bool  // content has been read at least once
}

// load reads what has changed and returns the rejections that are new.
func (s *fileSet) load() []Rejection {
	paths, err := s.list()
	s.listError = err
	if err != nil {
		return []Rejection{s.listRejection()}
	}
	var news []Rejection
	files := make(map[string]fileState, len(paths))
	for _, path := range paths {
		old := s.files[path]
		state, changed := readFile(path, old)
		files[path] = state
		if !changed {
			continue
		}
		if state.err != nil {
			news = append(news, Rejection{Key: Key{FileType, path}, Err: state.err})
		}
		news = append(news, state.content.rejected...)
	}
	s.files = files
	return news
}

func (s *fileSet) listRejection() Rejection {
	return Rejection{Key: Key{FileType, s.path}, Err: s.listError}
}

func (s *fileSet) list() ([]string, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{s.path}, nil
	}
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(s.path, e.Name())
		// Stat follows the links that a ConfigMap consists of.
		if info, err := os.Stat(path); readableExtension(path) && (err != nil || info.Mode().IsRegular()) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

func readFile(path string, old fileState) (state fileState, changed bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		state := fileState{content: old.content, loaded: old.loaded, err: err}
		return state, old.err == nil || old.err.Error() != err.Error()
	}
	sum := sha256.Sum256(text)
	if sum == old.sum {
		return old, false
	}
	content, err := parseFile(path, text)
	if err != nil {
		return fileState{sum: sum, content: old.content, loaded: old.loaded, err: err}, true
	}
	content.keepLastGood(old.content)
	return fileState{sum: sum, content: content, loaded: true}, true
}

// keepLastGood takes the previous version of what is rejected now.
func (c *fileContent) keepLastGood(old fileContent) {
	for _, r := range c.rejected {
		i := slices.IndexFunc(old.resources, func(o *Resource) bool { return o.Key == r.Key })
		known := slices.ContainsFunc(c.resources, func(o *Resource) bool { return o.Key == r.Key })
		if i >= 0 && !known {
			c.resources = append(c.resources, old.resources[i])
		}
	}
}

// update returns the state of the files, and whether it differs from the last Update.
func (s *fileSet) update() (Update, bool) {
	u := Update{Received: time.Now()}
	if s.listError != nil {
		u.Rejected = append(u.Rejected, s.listRejection())
	}
	owner := map[Key]string{}
	now := map[Key]*Resource{}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		state := s.files[path]
		if state.err != nil {
			u.Rejected = append(u.Rejected, Rejection{Key: Key{FileType, path}, Err: state.err})
		}
		if !state.loaded && !s.complete {
			u.Pending = []Key{{Type: FileType}}
		}
		u.Rejected = append(u.Rejected, state.content.rejected...)
		for _, r := range state.content.resources {
			if first, twice := owner[r.Key]; twice {
				u.Rejected = append(u.Rejected, Rejection{Key: r.Key, Err: fmt.Errorf("in %s: %s holds it already", path, first)})
				continue
			}
			owner[r.Key], now[r.Key] = path, r
		}
	}
	s.complete = s.complete || len(u.Pending) == 0

	var put []*Resource
	var removed []Key
	for key, r := range now {
		if old := s.last.Snapshot.Get(key); old == nil || !bytes.Equal(old.Body.GetValue(), r.Body.GetValue()) {
			if r.Received.IsZero() { // else others may read it: another file hid it for a while
				r.Received = u.Received
			}
			put = append(put, r)
			u.Changed = append(u.Changed, key)
		}
	}
	for _, typeURL := range s.last.Snapshot.Types() {
		for old := range s.last.Snapshot.All(typeURL) {
			if now[old.Key] == nil {
				removed = append(removed, old.Key)
			}
		}
	}
	u.Changed = sortedKeys(append(u.Changed, removed...))
	u.Snapshot = s.last.Snapshot.With(put, removed)
	news := len(u.Changed) > 0 || !slices.Equal(u.Pending, s.last.Pending) ||
		!slices.EqualFunc(u.Rejected, s.last.Rejected, sameRejection)
	s.last = u
	return u, news
}

func sameRejection(a, b Rejection) bool { return a.Key == b.Key && a.Err.Error() == b.Err.Error() }
