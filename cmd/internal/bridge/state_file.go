package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// stateFile is a file of the state directory that cannot always be written: a disk may be full, and what
// is served does not suffer for that.
type stateFile struct {
	name     string
	failures prometheus.Counter
	log      *slog.Logger
	failing  bool // owned by whoever writes the file
}

func newStateFile(name string, r prometheus.Registerer, log *slog.Logger) *stateFile {
	f := &stateFile{name: name, log: log, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "meshbridge_state_write_failures_total",
		Help:        "Attempts to write a file of the state directory that failed; what it is to say is tried again.",
		ConstLabels: prometheus.Labels{"file": name},
	})}
	r.MustRegister(f.failures)
	return f
}

// wrote takes note of how an attempt to write ended. The first of several failures is logged.
func (f *stateFile) wrote(err error) {
	if err != nil {
		f.failures.Inc()
		if !f.failing {
			f.log.Warn("the state cannot be written, going on without: a restart may not know what was served",
				slog.String("file", f.name), slog.Any("error", err))
		}
	} else if f.failing {
		f.log.Info("the state is written again", slog.String("file", f.name))
	}
	f.failing = err != nil
}

// noSpace tells a full disk, which passes, from a state directory that is none.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// writeFileAtomic replaces the file so that a crash leaves the old or the new content, never a part. What
// a crash may leave beside it is used again by the next attempt.
func writeFileAtomic(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
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

// overwriteFile replaces content of the same size in place, which needs no room on the disk. So few bytes
// are written at once or not at all.
func overwriteFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != int64(len(data)) {
		err = fmt.Errorf("%s has %d bytes, and %d are to replace them in place", path, info.Size(), len(data))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Sync(), f.Close())
}
