package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// identityLife is how long the certificate of a secure gateway lives: it is renewed several times.
const identityLife = time.Minute

// serviceAccount is that of the secure gateway.
const serviceAccount = "default/inner"

// tokens are those of the secure gateway, as the kubelet puts them in a volume: behind a symbolic link that
// is exchanged as a whole.
type tokens struct {
	dir      string // of the volume
	accepted string // what istiod takes
	serial   int
}

func (t *tokens) file() string { return filepath.Join(t.dir, "istio-token") }

func (t *tokens) name(serial int) string { return fmt.Sprintf("token-%d", serial) }

// accept replaces what istiod takes.
func (t *tokens) accept(serials ...int) error {
	pairs := []string{"none=none/none"}
	for _, n := range serials {
		pairs = append(pairs, t.name(n)+"="+serviceAccount)
	}
	return replaceFile(t.accepted, strings.Join(pairs, ","))
}

// project puts the next token in the volume.
func (t *tokens) project() error {
	t.serial++
	generation := fmt.Sprintf("..generation-%d", t.serial)
	if err := os.Mkdir(filepath.Join(t.dir, generation), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(t.dir, generation, "istio-token"), []byte(t.name(t.serial)), 0o600); err != nil {
		return err
	}
	old, _ := os.Readlink(filepath.Join(t.dir, "..data"))
	if err := os.Symlink(generation, filepath.Join(t.dir, "..data_tmp")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(t.dir, "..data_tmp"), filepath.Join(t.dir, "..data")); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(t.dir, old))
	}
	return os.Symlink(filepath.Join("..data", "istio-token"), t.file())
}

// rotateToken is what the kubelet does long before a token expires.
func (s *soak) rotateToken(hold func()) error {
	t := s.tokens
	if err := t.accept(t.serial, t.serial+1); err != nil {
		return err
	}
	if err := t.project(); err != nil {
		return err
	}
	hold()
	return t.accept(t.serial)
}

// tokenExpired is what comes of a kubelet that is late: new connections to istiod are refused.
func (s *soak) tokenExpired(ctx context.Context, hold func()) error {
	const reason = "the token has expired"
	defer s.late(reason, s.inner)()
	if err := s.tokens.accept(); err != nil {
		return err
	}
	hold()
	if err := errors.Join(s.tokens.accept(s.tokens.serial, s.tokens.serial+1), s.tokens.project()); err != nil {
		return err
	}
	return s.recover(ctx, s.inner.connected)
}

// diskFull leaves no room for the states, and nothing is to be noticed of that.
func (s *soak) diskFull(_ context.Context, hold func()) error {
	name := filepath.Join(s.disk, "filler")
	filler, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	defer func() { _ = filler.Close() }()
	for block := make([]byte, 4<<10); err == nil; {
		_, err = filler.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	hold()
	return nil
}

func replaceFile(name, text string) error {
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
