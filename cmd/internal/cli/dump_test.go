package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unpack returns the files of a dump.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	compressed, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(compressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(header.Name, "meshbridge-dump/")] = string(text)
	}
}

func TestADumpHasEveryPartThatAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/diagnostics" {
			http.Error(w, "nothing has been translated yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, r.URL.String())
	}))
	defer server.Close()
	admin := strings.TrimPrefix(server.URL, "http://")
	path := filepath.Join(t.TempDir(), "report.tar.gz")
	code, out, errs := command(t, nil, "dump", "--admin", admin, "-o", path)
	if code != exitOK || out != path+"\n" || !strings.Contains(errs, "diagnostics.json: HTTP 503: nothing has been translated yet") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, data)
	for _, f := range dumpFiles() {
		want := f.path
		if f.name == "diagnostics.json" {
			want = ""
		}
		if files[f.name] != want {
			t.Errorf("%s is %q, want %q", f.name, files[f.name], want)
		}
	}
	if !strings.HasPrefix(files["missing.txt"], "diagnostics.json: ") {
		t.Errorf("missing.txt is %q", files["missing.txt"])
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
	}
	code, out, _ = command(t, nil, "dump", "--admin", admin, "-o", "-")
	if again := unpack(t, []byte(out)); code != exitOK || len(again) != len(files) {
		t.Errorf("on stdout: exit code %d, %d files", code, len(again))
	}
}

func TestADumpOfNothingIsNoFile(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	path := filepath.Join(t.TempDir(), "report.tar.gz")
	code, _, errs := command(t, nil, "dump", "--admin", strings.TrimPrefix(server.URL, "http://"), "-o", path)
	if _, err := os.Stat(path); err == nil || code != exitError || !strings.Contains(errs, "no bridge answers on --admin") {
		t.Errorf("exit code %d, stderr %q, and the file is there: %v", code, errs, err == nil)
	}
}
