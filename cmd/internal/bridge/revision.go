package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// maxRevision is where APISIX's JSON encoder starts to lose digits of a revision: it writes 14.
	maxRevision = 100_000_000_000_000
	// revisionReserve is how far ahead of the current revision the persisted ceiling is kept.
	revisionReserve = 100_000
	ceilingFile     = "revision.json"
)

// revisions decides where the revisions of this process start, so that they never go back and no
// (key, revision) pair ever has two contents: APISIX keeps an object whose revision did not change.
// They start at the wall clock in milliseconds or, with a state directory, above the ceiling that
// the last process promised to stay below.
type revisions struct {
	path    string // empty without a state directory
	ceiling int64  // revisions below it are promised on disk
}

type ceilingRecord struct {
	Ceiling int64 `json:"ceiling"`
}

// openRevisions returns the base revision and the record to keep up to date with reserve.
func openRevisions(stateDir string, now time.Time) (base int64, r *revisions, err error) {
	base = now.UnixMilli()
	r = &revisions{}
	if stateDir != "" {
		r.path = filepath.Join(stateDir, ceilingFile)
		last, err := readCeiling(r.path)
		if err != nil {
			return 0, nil, err
		}
		base = max(base, last+1)
	}
	if base >= maxRevision-revisionReserve {
		return 0, nil, fmt.Errorf("revisions would start at %d, and APISIX cannot represent %d and above: check the clock and %s", base, int64(maxRevision), r.path)
	}
	if err := r.reserve(base); err != nil {
		return 0, nil, err
	}
	return base, r, nil
}

// reserve promises on disk that revisions up to current and a good deal above may be used. It must
// be called before a commit that could reach the ceiling.
func (r *revisions) reserve(current int64) error {
	if r.path == "" || current+revisionReserve/2 < r.ceiling {
		return nil
	}
	ceiling := current + revisionReserve
	data, err := json.Marshal(ceilingRecord{Ceiling: ceiling})
	if err != nil {
		return fmt.Errorf("revision ceiling: %w", err)
	}
	if err := writeFileAtomic(r.path, append(data, '\n')); err != nil {
		return fmt.Errorf("revision ceiling: %w", err)
	}
	r.ceiling = ceiling
	return nil
}

func readCeiling(path string) (int64, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("revision ceiling: %w", err)
	}
	var rec ceilingRecord
	if err := json.Unmarshal(data, &rec); err != nil || rec.Ceiling <= 0 {
		return 0, fmt.Errorf("revision ceiling: %s is damaged (%q): remove it to start at the clock", path, data)
	}
	return rec.Ceiling, nil
}

// writeFileAtomic replaces the file so that a crash leaves the old or the new content, never a part.
func writeFileAtomic(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
