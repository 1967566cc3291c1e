package bridge

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/cmd/internal/extend"
	"meshbridge/gateway"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// extendTest is a mesh with a directory of extensions, laid out as kubelet does: ..data leads to a directory for
// each version.
type extendTest struct {
	*pipelineTest
	dir     string
	version int
}

func extendBubble(t *testing.T, files map[string]string, test func(t *testing.T, e *extendTest)) {
	t.Helper()
	e := &extendTest{dir: t.TempDir()}
	bubbleIn(t, translate.Direct(0, 0), 3, func() resolver { return nil }, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		e.pipelineTest = p
		e.swap(files)
		extensions, err := openExtensions(&ExtensionsConfig{Directory: e.dir, Config: extend.Config{
			Loaded: apisixconfig.Plugins(apisix.Version{}, nil),
		}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.pipeline.extensions = extensions
		p.start()
		test(t, e)
	})
}

// swap replaces all files at once.
func (e *extendTest) swap(files map[string]string) {
	e.t.Helper()
	e.version++
	version := "..v" + string(rune('0'+e.version))
	check := func(err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	check(os.Mkdir(filepath.Join(e.dir, version), 0o700))
	for name, text := range files {
		check(os.WriteFile(filepath.Join(e.dir, version, name), []byte(text), 0o600))
	}
	check(os.Symlink(version, filepath.Join(e.dir, "..new")))
	check(os.Rename(filepath.Join(e.dir, "..new"), filepath.Join(e.dir, "..data")))
}

// events are those of all revisions, without the values.
func events(revisions [][]string) []string {
	all := keysOf(slices.Concat(revisions...))
	slices.Sort(all)
	return all
}

const (
	keyForOne = "kind: Plugins\nname: keys\nselector: {hosts: [svc-1.default.svc.cluster.local]}\nplugins: {key-auth: {}}\n"
	jack      = "---\nkind: Consumer\nname: jack\nspec: {plugins: {key-auth: {key: k}}}\n"
)

func TestAnEditOfExtensionsCommitsWhatItChanges(t *testing.T) {
	extendBubble(t, nil, func(t *testing.T, e *extendTest) {
		t.Helper()
		e.swap(map[string]string{"a.yaml": keyForOne + jack})
		added := events(e.pass(2 * filePoll))
		if len(added) != 2 || !strings.Contains(added[0], "/consumers/jack") || !strings.Contains(added[1], "svc-1.default") {
			t.Fatalf("added: %v", added)
		}
		if again := e.pass(3 * filePoll); len(again) > 0 {
			t.Errorf("nothing changed: %v", again)
		}
		e.swap(map[string]string{"a.yaml": keyForOne + strings.ReplaceAll(jack, "key: k", "key: other")})
		if changed := events(e.pass(2 * filePoll)); len(changed) != 1 || !strings.Contains(changed[0], "/consumers/jack") {
			t.Errorf("one consumer changed: %v", changed)
		}
		e.swap(map[string]string{"a.yaml": "kind: [" + jack})
		if broken := e.pass(2 * filePoll); len(broken) > 0 || !e.reports(translate.CodeExtensionInvalid) {
			t.Errorf("a broken document: %v", broken)
		}
		// The consumer goes at once, not when upstreams do.
		e.swap(nil)
		if removed := events(e.pass(2 * filePoll)); len(removed) != 2 || !strings.Contains(removed[0], "/consumers/jack") || e.reports(translate.CodeExtensionInvalid) {
			t.Errorf("removed: %v", removed)
		}
	})
}

func (e *extendTest) reports(code translate.Code) bool {
	return slices.ContainsFunc(e.pipeline.view.Load().Diagnostics, func(d translate.Diagnostic) bool { return d.Code == code })
}

func TestADirectoryThatGoesAwayChangesNothing(t *testing.T) {
	extendBubble(t, map[string]string{"a.yaml": keyForOne}, func(t *testing.T, e *extendTest) {
		t.Helper()
		away := e.dir + ".away"
		if err := os.Rename(e.dir, away); err != nil {
			t.Fatal(err)
		}
		if gone := e.pass(2 * filePoll); len(gone) > 0 || !e.reports(translate.CodeExtensionDirectory) {
			t.Errorf("gone: %v", gone)
		}
		if err := os.Rename(away, e.dir); err != nil {
			t.Fatal(err)
		}
		if back := e.pass(2 * filePoll); len(back) > 0 || e.reports(translate.CodeExtensionDirectory) {
			t.Errorf("back: %v", back)
		}
	})
}

func TestADirectoryThatIsMissingAtTheStartIsAMistake(t *testing.T) {
	if _, err := openExtensions(&ExtensionsConfig{Directory: filepath.Join(t.TempDir(), "no")}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error")
	}
}

func TestClientsCannotWriteWhatTheDirectoryHas(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(jack), 0o600); err != nil {
		t.Fatal(err)
	}
	extensions, err := openExtensions(&ExtensionsConfig{Directory: dir, Config: extend.Config{Loaded: apisixconfig.Plugins(apisix.Version{}, nil)}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o := newOwnership("/apisix", extensions)
	for _, w := range []struct {
		write gateway.Write
		want  gateway.Admission
	}{
		{gateway.Write{Key: []byte("/apisix/consumers/jack")}, gateway.Denied},
		{gateway.Write{Key: []byte("/apisix/consumers/jill")}, gateway.Admitted},
		{gateway.Write{Key: []byte("/apisix/consumers/jack"), Delete: true}, gateway.Denied},
		{gateway.Write{Key: []byte("/apisix/consumers/ja"), End: []byte("/apisix/consumers/jb"), Delete: true}, gateway.Denied},
		{gateway.Write{Key: []byte("/apisix/consumers/jb"), End: []byte("/apisix/consumers/k"), Delete: true}, gateway.Admitted},
	} {
		if got := o.admit(w.write); got != w.want {
			t.Errorf("%s %s: %v, want %v", w.write.Key, w.write.End, got, w.want)
		}
	}
}
