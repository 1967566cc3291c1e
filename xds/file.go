package xds

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// FileType is the Type of a Rejection that concerns a file as a whole; Name is its path.
const FileType = "file"

const defaultFileDebounce = 100 * time.Millisecond

// FileConfig configures NewFileSource.
type FileConfig struct {
	// Path is a file, or a directory whose *.json, *.yaml and *.yml are read in the order of their
	// names; other files and subdirectories are ignored.
	Path string
	// Debounce is how long files must have been quiet before they are read again; default 100 ms.
	Debounce time.Duration
	// Logger receives one line per reload and per rejection; default: discard.
	Logger *slog.Logger
}

// FileSource is a Source that reads resources from files and follows their changes, including the
// symbolic link swaps by which Kubernetes updates mounted ConfigMaps.
//
// A file holds discovery responses, a config dump of Envoy or istiod, resources with their @type,
// or a list of these, as JSON or YAML. A file that cannot be read or parsed keeps its last good
// content, and so does a resource in it that is not valid. Where two files hold the same resource,
// the first one counts and the other is rejected.
type FileSource struct {
	config FileConfig
	logger *slog.Logger
	files  fileSet // owned by Run
}

// NewFileSource returns an error if the path does not exist.
func NewFileSource(config FileConfig) (*FileSource, error) {
	if _, err := os.Stat(config.Path); err != nil {
		return nil, fmt.Errorf("resource files: %w", err)
	}
	config.Path = filepath.Clean(config.Path)
	if config.Debounce == 0 {
		config.Debounce = defaultFileDebounce
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &FileSource{config: config, logger: config.Logger, files: fileSet{path: config.Path}}, nil
}

// LoadFiles reads a file or directory once. Files and resources that are not valid are returned as
// rejections; an error means that there was nothing to read.
func LoadFiles(path string) (*Snapshot, []Rejection, error) {
	s := fileSet{path: filepath.Clean(path)}
	s.load()
	if s.listError != nil {
		return nil, nil, s.listError
	}
	if len(s.files) == 0 {
		return nil, nil, fmt.Errorf("%s: holds no .json, .yaml or .yml file", path)
	}
	u, _ := s.update()
	return u.Snapshot, u.Rejected, nil
}

// Run implements Source. The first Update comes at once. It is not Complete while a file that was
// there from the start has never been readable.
func (s *FileSource) Run(ctx context.Context, deliver func(Update)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.config.Path, err)
	}
	defer watcher.Close()

	quiet := time.NewTimer(0)
	defer quiet.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-quiet.C:
			// Watch before reading, so that no change falls between the two.
			s.watch(ctx, watcher)
			for _, r := range s.files.load() {
				s.logger.LogAttrs(ctx, slog.LevelWarn, "resource file rejected, keeping its last good content",
					slog.String("resource", r.Key.String()), slog.Any("error", r.Err))
			}
			if u, news := s.files.update(); first || news {
				first = false
				s.logger.LogAttrs(ctx, slog.LevelInfo, "resource files loaded", slog.String("path", s.config.Path),
					slog.Int("changed", len(u.Changed)), slog.Int("rejected", len(u.Rejected)))
				deliver(u)
			}
		case event := <-watcher.Events:
			if s.concerns(event) {
				quiet.Reset(s.config.Debounce)
			}
		case err := <-watcher.Errors:
			// Events may have been lost: an overflow says so here.
			s.logger.LogAttrs(ctx, slog.LevelWarn, "watching resource files failed, reading them again", slog.Any("error", err))
			quiet.Reset(s.config.Debounce)
		}
	}
}

// watch follows the path's own directory entry and, for a directory, what is in it. Watches follow
// the inode, so they are made afresh after each change.
func (s *FileSource) watch(ctx context.Context, watcher *fsnotify.Watcher) {
	for _, dir := range []string{filepath.Dir(s.config.Path), s.config.Path} {
		// Removing fails when it was not watched, which is as good.
		_ = watcher.Remove(dir)
		if err := watcher.Add(dir); err != nil {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "cannot watch resource files",
				slog.String("path", dir), slog.Any("error", err))
		}
	}
}

// concerns leaves out the neighbours of the path, and files that are not read. The kubelet replaces
// the link ..data beside the file or in the directory.
func (s *FileSource) concerns(event fsnotify.Event) bool {
	if event.Op == fsnotify.Chmod {
		return false
	}
	return event.Name == s.config.Path || filepath.Base(event.Name) == "..data" ||
		filepath.Dir(event.Name) == s.config.Path && readableExtension(event.Name)
}
