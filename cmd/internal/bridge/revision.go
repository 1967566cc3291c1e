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
	// retryCeiling is the least time between attempts to write the ceiling that fail.
	retryCeiling = time.Second
	ceilingFile  = "revision.json"
)

// revisions decides where the revisions of this process start, so that they never go back and no
// (key, revision) pair ever has two contents: APISIX keeps an object whose revision did not change.
// They start at the wall clock in milliseconds or, with a state directory, above the ceiling that
// the last process promised to stay below.
type revisions struct {
	path    string // empty without a state directory
	file    *stateFile
	ceiling int64     // revisions below it are promised on disk
	tried   time.Time // when that failed last
}

type ceilingRecord struct {
	Ceiling int64 `json:"ceiling"`
}

// openRevisions returns the base revision and the record to keep up to date with reserve.
func openRevisions(stateDir string, now time.Time, file *stateFile) (base int64, r *revisions, err error) {
	base = now.UnixMilli()
	r = &revisions{file: file}
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
	if r.path == "" {
		return base, r, nil
	}
	// A bridge that does not start would leave APISIX without routes, for the sake of a clock that may go
	// back before the next start.
	if err := r.write(base + revisionReserve); err != nil && !noSpace(err) {
		return 0, nil, err
	}
	return base, r, nil
}

// resumeRevisions returns the record of a process that has stopped, to go on with its revisions.
func resumeRevisions(stateDir string, file *stateFile) (*revisions, error) {
	r := &revisions{file: file}
	if stateDir == "" {
		return r, nil
	}
	r.path = filepath.Join(stateDir, ceilingFile)
	var err error
	r.ceiling, err = readCeiling(r.path)
	return r, err
}

// reserve promises on disk that revisions up to current and a good deal above may be used. It must
// be called before a commit that could reach the ceiling. Where the promise cannot be written it is tried
// again with later commits, and the next process starts at its clock if that is higher.
func (r *revisions) reserve(current int64) {
	if r.path == "" || current+revisionReserve/2 < r.ceiling {
		return
	}
	if r.tried.IsZero() || time.Since(r.tried) >= retryCeiling {
		_ = r.write(current + revisionReserve) // has been reported
	}
}

func (r *revisions) write(ceiling int64) error {
	data, err := json.Marshal(ceilingRecord{Ceiling: ceiling})
	if err != nil {
		return fmt.Errorf("revision ceiling: %w", err)
	}
	data = append(data, '\n')
	if err = writeFileAtomic(r.path, data); noSpace(err) {
		if inPlace := overwriteFile(r.path, data); inPlace == nil {
			err = nil
		}
	}
	if r.file.wrote(err); err != nil {
		r.tried = time.Now()
		return fmt.Errorf("revision ceiling: %w", err)
	}
	r.ceiling, r.tried = ceiling, time.Time{}
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
