package allocate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	kindPort    = "port"
	kindAddress = "address"
)

// record is a line of the journal: a number was given to a name. Later lines win.
type record struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Number uint32 `json:"number"`
}

// journal is an append-only file. It survives the process, not the machine: nothing that it is about
// does, either.
type journal struct {
	path    string
	file    *os.File
	pending []byte
	lines   int
}

// openJournal reads the file, if there is one. A crash can leave a damaged last line.
func openJournal(path string) (*journal, []record, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &journal{path: path}, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("allocations: %w", err)
	}
	return &journal{path: path}, readRecords(data), nil
}

// readRecords ends at the first damaged line.
func readRecords(data []byte) []record {
	var records []record
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, len(data)+1)
	for scanner.Scan() {
		var r record
		if json.Unmarshal(scanner.Bytes(), &r) != nil {
			break
		}
		records = append(records, r)
	}
	return records
}

// rewrite replaces the file, and appends to the new one from now on.
func (j *journal) rewrite(records []record) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o750); err != nil {
		return fmt.Errorf("allocations: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+".*")
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

func (j *journal) add(r record) {
	line, err := json.Marshal(r)
	if err != nil {
		return // strings and numbers encode
	}
	j.pending = append(append(j.pending, line...), '\n')
	j.lines++
}

func (j *journal) flush() error {
	if len(j.pending) == 0 {
		return nil
	}
	if _, err := j.file.Write(j.pending); err != nil {
		return fmt.Errorf("allocations: %w", err)
	}
	j.pending = j.pending[:0]
	return nil
}

func (j *journal) close() error { return j.file.Close() }
