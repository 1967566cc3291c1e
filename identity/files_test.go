package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/identity"
	"meshbridge/identity/identitytest"
)

// material is what the three files hold.
type material struct{ chain, key, roots []byte }

func newMaterial(t *testing.T, leaf identitytest.Leaf) material {
	t.Helper()
	ca := identitytest.NewCA(t, "root")
	if leaf.URIs == nil {
		leaf.URIs = []string{workload}
	}
	chain, key := identitytest.PEM(t, ca.Issue(t, leaf))
	return material{chain, key, ca.RootPEM()}
}

func (m material) write(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "cert-chain.pem"), m.chain)
	write(t, filepath.Join(dir, "key.pem"), m.key)
	write(t, filepath.Join(dir, "root-cert.pem"), m.roots)
}

// is tells whether the identity is the one that the files hold.
func (m material) is(t *testing.T, current *identity.Identity) bool {
	t.Helper()
	chain, _ := identitytest.PEM(t, current.Certificate)
	return string(chain) == string(m.chain) && string(current.AuthoritiesPEM) == string(m.roots)
}

func filesIn(t *testing.T, dir string, log *logbook, registry prometheus.Registerer) identity.Source {
	t.Helper()
	source, err := identity.Files(identity.FilesConfig{Dir: dir, Logger: log.logger(), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

const lookInterval = 6 * time.Second // and a bit

func TestFilesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), newLogbook()
		source := filesIn(t, dir, log, nil)
		stop := run(t, source)
		synctest.Wait()
		if source.Current() != nil {
			t.Error("there is an identity without files")
		}
		wait(time.Minute)
		if n := strings.Count(log.String(), "cert-chain.pem: no such file"); n != 1 {
			t.Errorf("missing files are reported %d times in a minute", n)
		}
		for range 3 {
			m := newMaterial(t, identitytest.Leaf{})
			m.write(t, dir)
			changed := source.Changed()
			wait(lookInterval)
			if current := source.Current(); current == nil || !m.is(t, current) || current.ID != workload {
				t.Fatalf("not what the files hold:\n%s", log)
			}
			select {
			case <-changed:
			default:
				t.Error("nobody was told")
			}
			checkSecrets(t, log, source.Current())
		}
		before := source.Changed()
		wait(time.Hour / 2)
		select {
		case <-before:
			t.Error("changed although the files are the same")
		default:
		}
		stop()
	})
}

// The kubelet makes a new directory and then turns the link ..data to it.
func TestASwapOfTheLinkOfAVolumeIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		link := filepath.Join(dir, "..data")
		for _, name := range []string{"cert-chain.pem", "key.pem", "root-cert.pem"} {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		source := filesIn(t, dir, newLogbook(), nil)
		stop := run(t, source)
		for _, generation := range []string{"..1", "..2"} {
			if err := os.Mkdir(filepath.Join(dir, generation), 0o700); err != nil {
				t.Fatal(err)
			}
			m := newMaterial(t, identitytest.Leaf{})
			m.write(t, filepath.Join(dir, generation))
			if err := os.Symlink(generation, link+"_tmp"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link+"_tmp", link); err != nil {
				t.Fatal(err)
			}
			wait(lookInterval)
			if current := source.Current(); current == nil || !m.is(t, current) {
				t.Errorf("%s is not current", generation)
			}
		}
		stop()
	})
}

// Somebody copies the files one by one, and slowly: at no time is there an identity whose key is not
// that of its certificate, and the end is right.
func TestFilesWrittenInPartsBecomeCurrentWhenTheyFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), newLogbook()
		registry := prometheus.NewRegistry()
		old, next := newMaterial(t, identitytest.Leaf{}), newMaterial(t, identitytest.Leaf{})
		old.write(t, dir)
		source := filesIn(t, dir, log, registry)
		stop := run(t, source)
		wait(lookInterval)
		steps := []struct {
			name string
			text []byte
		}{
			{"cert-chain.pem", nil},
			{"cert-chain.pem", next.chain[:100]},
			{"cert-chain.pem", next.chain},
			{"key.pem", next.key[:50]},
			{"key.pem", nil},
			{"root-cert.pem", next.roots[:len(next.roots)-30]},
			{"key.pem", next.key},
		}
		for i, step := range steps {
			write(t, filepath.Join(dir, step.name), step.text)
			wait(lookInterval)
			if !old.is(t, source.Current()) {
				t.Errorf("step %d: half of a change became current", i)
			}
		}
		if n := value(t, registry, "meshbridge_identity_failures_total"); n < 3 {
			t.Errorf("%v failures counted", n)
		}
		write(t, filepath.Join(dir, "root-cert.pem"), next.roots)
		wait(lookInterval)
		if !next.is(t, source.Current()) {
			t.Errorf("the new files are not current:\n%s", log)
		}
		stop()
	})
}

func TestFilesThatAreNotReplacedInTimeAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), newLogbook()
		newMaterial(t, identitytest.Leaf{NotAfter: time.Now().Add(time.Hour)}).write(t, dir)
		source := filesIn(t, dir, log, nil)
		stop := run(t, source)
		wait(2 * time.Hour)
		if n := strings.Count(log.String(), "has not been replaced"); n != 1 {
			t.Errorf("reported %d times:\n%s", n, log)
		}
		if source.Current() == nil {
			t.Error("the identity was given up")
		}
		stop()
	})
}

func TestFilesNeedADirectory(t *testing.T) {
	if _, err := identity.Files(identity.FilesConfig{}); err == nil {
		t.Error("no error")
	}
}
