package allocate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	kindPort    = "port"
	kindAddress = "address"
)

// Number is a line of the journal: a number was given to a name. Later lines win.
type Number struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Number uint32 `json:"number"`
}

// journal is an append-only file. It survives the process, not the machine: nothing that it is about
// does, either. What cannot be written, because the disk is full, waits for the next attempt.
type journal struct {
	path    string
	file    *os.File // nil where there is none yet
	size    int64    // of the complete lines in file
	pending []byte
	lines   int
}

// openJournal reads the file, if there is one, and appends to it from now on. A crash can leave a damaged
// last line, which is cut off.
func openJournal(path string) (*journal, []Number, error) {
	j := &journal{path: path}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("allocations: %w", err)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, fmt.Errorf("allocations: %w", errors.Join(err, file.Close()))
	}
	records, size := readRecords(data)
	if err := file.Truncate(size); err != nil {
		return nil, nil, fmt.Errorf("allocations: %w", errors.Join(err, file.Close()))
	}
	j.file, j.size, j.lines = file, size, len(records)
	return j, records, nil
}

// readRecords ends at the first damaged line. It returns the size of those before it.
func readRecords(data []byte) (records []Number, size int64) {
	for line := range bytes.Lines(data) {
		var r Number
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &r) != nil {
			break
		}
		records = append(records, r)
		size += int64(len(line))
	}
	return records, size
}

// rewrite replaces the file, and appends to the new one from now on. Where that fails the old one stays, and
// what a crash may leave beside it is used again by the next attempt.
func (j *journal) rewrite(records []Number) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o750); err != nil {
		return fmt.Errorf("allocations: %w", err)
	}
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("allocations: %w", err)
	}
	next := &journal{path: j.path, file: f}
	for _, r := range records {
		next.add(r)
	}
	if err = next.flush(); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return fmt.Errorf("allocations: %w", errors.Join(err, f.Close(), os.Remove(f.Name())))
	}
	if j.file != nil {
		_ = j.file.Close() // which has been replaced
	}
	*j = *next
	return nil
}

func (j *journal) add(r Number) {
	line, err := json.Marshal(r)
	if err != nil {
		return // strings and numbers encode
	}
	j.pending = append(append(j.pending, line...), '\n')
	j.lines++
}

// flush writes all that is pending, or nothing: lines after a part of one would not be read again.
func (j *journal) flush() error {
	if len(j.pending) == 0 {
		return nil
	}
	if _, err := j.file.WriteAt(j.pending, j.size); err != nil {
		return fmt.Errorf("allocations: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	j.size += int64(len(j.pending))
	j.pending = j.pending[:0]
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
