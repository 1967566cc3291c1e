package xds

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTokenExpiry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln\n"
	}
	for text, want := range map[string]time.Time{
		jwt(`{"exp":1893456000,"iss":"kubernetes"}`): time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
		jwt(`{"exp":1893456000.5}`):                  time.Date(2030, 1, 1, 0, 0, 0, 5e8, time.UTC),
		jwt(`{}`):                                    {},
		jwt(`{"exp":1e300}`):                         {},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := TokenExpiry(file); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"opaque": "no JSON Web Token", "a.!.c": "illegal base64", "a.eA.c": "invalid character"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := TokenExpiry(file); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := TokenExpiry(file + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
