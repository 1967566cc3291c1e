package allocate

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that stands still.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func open(t *testing.T, c Config) *Allocator {
	t.Helper()
	if c.FirstPort == 0 {
		c.FirstPort, c.LastPort = 16000, 16003
	}
	if !c.Overlay.IsValid() {
		c.Overlay = netip.MustParsePrefix("127.96.0.0/11")
	}
	a, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestANumberRestsBeforeSomethingElseGetsIt(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	a := open(t, Config{Now: c.Now})
	ports := map[uint16]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		p, ok := a.StreamPort(name)
		if !ok || ports[p] != "" || p < 16000 || p > 16003 {
			t.Fatalf("%s got %d, %v; taken by %q", name, p, ok, ports[p])
		}
		ports[p] = name
	}
	if p, ok := a.StreamPort("e"); ok {
		t.Fatalf("a fifth name got %d of four ports", p)
	}
	b, _ := a.StreamPort("b")
	a.Release([]uint16{b}, nil)
	c.now = c.now.Add(Quarantine - time.Second)
	if p, ok := a.StreamPort("e"); ok {
		t.Fatalf("e got %d, which rests", p)
	}
	c.now = c.now.Add(time.Second)
	if p, ok := a.StreamPort("e"); !ok || p != b {
		t.Fatalf("e got %d, %v, want %d, which has rested", p, ok, b)
	}
	if p, ok := a.StreamPort("b"); ok {
		t.Fatalf("b still has %d", p)
	}
}

func TestANameThatComesBackGetsItsNumberAgain(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	a := open(t, Config{Now: c.Now})
	before, _ := a.OverlayAddress("x")
	a.Release(nil, []netip.Addr{before})
	c.now = c.now.Add(time.Hour)
	if after, ok := a.OverlayAddress("x"); !ok || after != before {
		t.Fatalf("x had %s and got %s, %v", before, after, ok)
	}
}

func TestARestartFindsTheNumbers(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: time.Unix(1000, 0)}
	first := open(t, Config{StateDir: dir, Now: c.Now})
	port, _ := first.StreamPort("db")
	address, _ := first.OverlayAddress("x")
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of a line.
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"kind":"po`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	second := open(t, Config{StateDir: dir, Now: c.Now})
	// Others, asking first, must not get what may still be in use.
	for i := range 3 {
		if p, ok := second.StreamPort(fmt.Sprint("other", i)); !ok || p == port {
			t.Fatalf("another name got %d, %v", p, ok)
		}
	}
	if p, _ := second.StreamPort("db"); p != port {
		t.Errorf("db had %d and got %d", port, p)
	}
	if x, _ := second.OverlayAddress("x"); x != address {
		t.Errorf("x had %s and got %s", address, x)
	}
}

// Nobody who is served suffers for a full disk, and nothing is lost once it no longer is.
func TestAFullDiskHoldsUpNothing(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip("needs ", full)
	}
	dir := t.TempDir()
	first := open(t, Config{StateDir: dir})
	a, _ := first.StreamPort("a")
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	// The next process cannot write the file anew, and goes on with the old one.
	if err := os.Symlink(full, filepath.Join(dir, journalFile+".new")); err != nil {
		t.Fatal(err)
	}
	second := open(t, Config{StateDir: dir})
	c, _ := second.StreamPort("c")
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	third := open(t, Config{StateDir: dir})
	for name, had := range map[string]uint16{"a": a, "c": c} {
		if p, _ := third.StreamPort(name); p != had {
			t.Errorf("%s had %d and got %d", name, had, p)
		}
	}
}

// What is written after a part of a line would not be read again.
func TestAPartOfALineIsTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), journalFile)
	line := `{"kind":"port","name":"a","number":1}` + "\n"
	if err := os.WriteFile(path, []byte(line+`{"kind":"po`), 0o600); err != nil {
		t.Fatal(err)
	}
	j, records, err := openJournal(path)
	if err != nil || len(records) != 1 {
		t.Fatalf("%v, %v", records, err)
	}
	j.add(Number{kindPort, "b", 2})
	if err := errors.Join(j.flush(), j.close()); err != nil {
		t.Fatal(err)
	}
	if _, records, err = openJournal(path); err != nil || len(records) != 2 {
		t.Errorf("%v, %v", records, err)
	}
}

func TestWhatCannotBeWrittenWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), journalFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{path: path, file: closed}
	j.add(Number{kindPort, "a", 1})
	if err := j.flush(); err == nil {
		t.Fatal("written to a file that is only open for reading")
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	j.add(Number{kindPort, "b", 2})
	if err := errors.Join(j.flush(), j.close()); err != nil {
		t.Fatal(err)
	}
	if _, records, err := openJournal(path); err != nil || len(records) != 2 {
		t.Errorf("%v, %v", records, err)
	}
}

func TestBadRangesAreRefused(t *testing.T) {
	for _, c := range []Config{
		{FirstPort: 10, LastPort: 9, Overlay: netip.MustParsePrefix("127.96.0.0/11")},
		{FirstPort: 10, LastPort: 19, Overlay: netip.MustParsePrefix("10.0.0.0/11")},
		{FirstPort: 10, LastPort: 19, Overlay: netip.MustParsePrefix("127.0.0.0/30")},
		{FirstPort: 10, LastPort: 19, Overlay: netip.MustParsePrefix("::1/128")},
	} {
		if _, err := Open(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// Whatever happens, no two names in use have one number, and a number in its rest has no new name.
func TestNumbersAreUnique(t *testing.T) {
	parent := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(parent, strconv.Itoa(runs))
		c := &clock{now: time.Unix(1000, 0)}
		config := Config{FirstPort: 1, LastPort: 6, Overlay: netip.MustParsePrefix("127.96.0.0/28"), StateDir: dir, Now: c.Now}
		a, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		inUse := map[string]uint16{}
		released := map[uint16]time.Time{}
		lastName := map[uint16]string{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}).Draw(t, "name")
				p, ok := a.StreamPort(name)
				if !ok {
					return
				}
				for other, q := range inUse {
					if other != name && q == p {
						t.Fatalf("%s and %s both have %d", name, other, p)
					}
				}
				if at, ok := released[p]; ok && lastName[p] != name && c.now.Sub(at) < Quarantine {
					t.Fatalf("%d went from %s to %s after %s", p, lastName[p], name, c.now.Sub(at))
				}
				inUse[name], lastName[p] = p, name
				delete(released, p)
			},
			"release": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name")
				if p, ok := inUse[name]; ok {
					a.Release([]uint16{p}, nil)
					released[p] = c.now
					delete(inUse, name)
				}
			},
			"wait": func(t *rapid.T) {
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second)
			},
			"restart": func(t *rapid.T) {
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				if a, err = Open(config); err != nil {
					t.Fatal(err)
				}
				for _, p := range inUse {
					released[p] = c.now
				}
				clear(inUse)
			},
		})
	})
}
