package istiod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read again:
// editors write a file in several steps.
const settle = 50 * time.Millisecond

// Follow applies every later change of the manifest directory until ctx ends.
// A directory that does not load is reported in one line and changes nothing;
// the previous state stays until the mistake is mended.
func (s *Server) Follow(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow %s: %w", s.manifests.Dir, err)
	}
	defer func() { _ = watcher.Close() }()
	if err := watcher.Add(s.manifests.Dir); err != nil {
		return fmt.Errorf("follow %s: %w", s.manifests.Dir, err)
	}
	// What changed between the first load and the start of the watch.
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if s.manifests.include(event.Name) {
				timer.Reset(settle)
			}
		case err := <-watcher.Errors:
			s.log.ErrorContext(ctx, "watching manifests failed", slog.String("dir", s.manifests.Dir), slog.Any("error", err))
			timer.Reset(settle)
		case <-timer.C:
			s.reload()
		}
	}
}

func (s *Server) reload() {
	docs, err := s.manifests.Load()
	if err != nil {
		s.log.Error("manifests not applied, previous state kept", slog.Any("error", err))
		return
	}
	for _, c := range diff(s.have, docs) {
		since := time.Now()
		if old, known := s.have[c.doc.Key]; known {
			since = old.Created
		}
		if err := errors.Join(c.doc.created(since), c.applyTo(s.store)); err != nil {
			s.log.Error("manifest not applied", slog.Any("error", err))
			continue
		}
		s.log.Info("manifest applied", slog.String("change", c.verb), slog.String("object", c.doc.Key.String()), slog.String("source", c.doc.Source))
		if c.verb == "removed" {
			delete(s.have, c.doc.Key)
		} else {
			s.have[c.doc.Key] = c.doc
		}
	}
}
