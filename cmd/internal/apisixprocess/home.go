package apisixprocess

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writableHome returns a directory like home in which APISIX can render its configuration and keep logs and
// temporary files: home itself, or, where its file system is read-only, one below work that has copies of
// conf, directories of its own for what is written, and links to the rest.
func writableHome(home, work string) (string, error) {
	probe, err := os.CreateTemp(filepath.Join(home, "conf"), ".meshbridge-*")
	if err == nil {
		return home, errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if work == "" {
		return "", fmt.Errorf("apisix: %s cannot be written, and no --apisix-work-dir is given: %w", home, err)
	}
	copied := filepath.Join(work, "apisix")
	// What an earlier process left is not to be mixed with what another release has.
	if err := os.RemoveAll(copied); err != nil {
		return "", fmt.Errorf("apisix: work directory: %w", err)
	}
	if err := copyHome(home, copied); err != nil {
		return "", fmt.Errorf("apisix: work directory: %w", err)
	}
	return copied, nil
}

func copyHome(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	// Workers may be another user than the master.
	if err := os.MkdirAll(filepath.Join(to, "logs"), 0o755); err != nil { //nolint:gosec // see above
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Name() == "conf":
			err = os.CopyFS(target, os.DirFS(source))
		case e.Name() == "logs" || strings.HasSuffix(e.Name(), "_temp"):
			// nginx makes its own.
		default:
			err = os.Symlink(source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
