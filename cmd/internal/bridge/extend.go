package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"meshbridge/cmd/internal/extend"
	"meshbridge/translate/apisix"
)

// ExtensionsConfig says where users' plugins and objects are.
type ExtensionsConfig struct {
	// Directory is read again every few seconds.
	Directory string
	extend.Config
}

// extensions keeps what users add up to date. It is owned by the pipeline, but for keys.
type extensions struct {
	// set once
	config ExtensionsConfig
	log    *slog.Logger

	files   []extend.File
	set     *extend.Set // what is translated
	failure string      // why the directory could not be read the last time
	// due is when it is read again.
	due time.Time
	// keys are those of the objects in the directory, below the prefix, which clients may not write.
	keys atomic.Pointer[map[string]bool]
}

// openExtensions reads the directory for the first time, when it has to be there. It returns nil without one.
func openExtensions(c *ExtensionsConfig, log *slog.Logger) (*extensions, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // nil is none
	}
	e := &extensions{config: *c, log: log}
	files, err := extend.ReadDirectory(c.Directory)
	if err != nil {
		return nil, fmt.Errorf("--extensions: %w", err)
	}
	if err := e.load(files); err != nil {
		return nil, err
	}
	e.due = time.Now().Add(filePoll)
	return e, nil
}

// load makes a set of files.
func (e *extensions) load(files []extend.File) error {
	set, err := extend.Load(e.config.Config, files, e.set)
	if err != nil {
		return fmt.Errorf("--extensions: %w", err)
	}
	e.files, e.set = files, set
	keys := map[string]bool{}
	for _, o := range set.Objects() {
		keys[o.Key()] = true
	}
	e.keys.Store(&keys)
	routes, streams, objects, problems := set.Summary()
	e.log.Info("extensions read", slog.String("directory", e.config.Directory), slog.Int("files", len(files)),
		slog.Int("plugins", routes+streams), slog.Int("objects", objects), slog.Int("problems", problems))
	return nil
}

// step reads the directory again when that is due, and tells whether it says something else.
func (e *extensions) step(now time.Time) (changed bool) {
	if e == nil || now.Before(e.due) {
		return false
	}
	e.due = now.Add(filePoll)
	files, err := extend.ReadDirectory(e.config.Directory)
	if err == nil && e.failure == "" && extend.SameFiles(files, e.files) {
		return false
	}
	if err == nil {
		err = e.load(files)
	}
	failure := ""
	if err != nil {
		failure = err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			failure = "it is missing"
		}
	}
	if err != nil && failure != e.failure {
		e.set = e.set.Unreadable(e.config.Directory, failure)
		e.log.Error("extensions cannot be read; the last ones are served on", slog.String("directory", e.config.Directory), slog.Any("error", err))
		e.failure = failure
		return true
	}
	e.failure = failure
	return err == nil
}

// nextDue is when step has something to do; zero is never.
func (e *extensions) nextDue() time.Time {
	if e == nil {
		return time.Time{}
	}
	return e.due
}

// defines tells whether the directory has the object of a key.
func (e *extensions) defines(key string) bool {
	if e == nil {
		return false
	}
	return (*e.keys.Load())[key]
}

// any tells whether the directory has an object of which the key passes the test.
func (e *extensions) any(test func(key string) bool) bool {
	if e == nil {
		return false
	}
	for key := range *e.keys.Load() {
		if test(key) {
			return true
		}
	}
	return false
}

// revoked tells of objects whose removal takes effect at once: nothing refers to them, and what they allow or do
// ends with them. Others may be referred to by what APISIX has not removed yet.
func revoked(key string) bool {
	switch kind, _, _ := apisix.ParseKey(key); kind {
	case apisix.KindConsumer, apisix.KindGlobalRule, apisix.KindPluginMetadata:
		return true
	default:
		return false
	}
}
