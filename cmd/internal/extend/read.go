package extend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFileSize bounds what is read of a file: etcd, and with it a ConfigMap, holds less.
const maxFileSize = 4 << 20

// ReadDirectory reads the files of a directory. Of a volume that kubelet keeps, all are of the same version: it
// replaces them by one symbolic link, "..data".
func ReadDirectory(directory string) ([]File, error) {
	files, err := readOnce(directory)
	if errors.Is(err, fs.ErrNotExist) { // replaced meanwhile, or really missing
		files, err = readOnce(directory)
	}
	return files, err
}

func readOnce(directory string) ([]File, error) {
	root := directory
	if data, err := filepath.EvalSymlinks(filepath.Join(directory, "..data")); err == nil {
		root = data
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	files := []File{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue // what kubelet and editors keep for themselves
		}
		f, err := readFile(root, entry.Name())
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func readFile(root, name string) (File, error) {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{Name: name + "/"}, nil // which is reported as no file with extensions
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return File{}, err
	}
	if len(data) > maxFileSize {
		return File{}, fmt.Errorf("%s: is larger than %d bytes", f.Name(), maxFileSize)
	}
	return File{Name: name, Data: data}, nil
}

// SameFiles tells whether two readings of a directory are equal.
func SameFiles(a, b []File) bool {
	return slices.EqualFunc(a, b, func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) })
}
