package apisixtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is an etcd that says what it is told to: an answer to ranges of everything and of the routes,
// none to others, and one list of chunks for each watch that comes. After the last list, watches stay
// silent.
type script struct {
	mu      sync.Mutex
	ranged  string
	watches [][]string
	bodies  []string // of the watches
	silent  chan struct{}
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	ranged := s.ranged
	var chunks []string
	last := len(s.watches) == 0
	if r.URL.Path == "/v3/watch" {
		s.bodies = append(s.bodies, string(body))
		if !last {
			chunks, s.watches = s.watches[0], s.watches[1:]
		}
	}
	s.mu.Unlock()
	if r.URL.Path == "/v3/kv/range" {
		if !strings.Contains(string(body), `"`+b64("/apisix")+`"`) && !strings.Contains(string(body), `"`+b64("/apisix/routes")+`"`) {
			ranged = world(5)
		}
		_, _ = io.WriteString(w, ranged)
		return
	}
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for _, chunk := range chunks {
		_, _ = io.WriteString(w, chunk)
		_ = flush.Flush()
	}
	if last {
		select {
		case s.silent <- struct{}{}:
			<-r.Context().Done()
		case <-r.Context().Done():
		}
	}
}

// play runs a client against a script until it waits in silence, and returns it.
func play(t *testing.T, version, ranged string, watches ...[]string) (*Client, *script) {
	t.Helper()
	s := &script{ranged: ranged, watches: watches, silent: make(chan struct{})}
	server := httptest.NewServer(s)
	c, err := New(version, server.URL, "/apisix")
	if err != nil {
		t.Fatal(err)
	}
	c.Pause = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	<-s.silent
	return c, s
}

func kv(key string, revision int, value string) string {
	return fmt.Sprintf(`{"key":%q,"mod_revision":"%d","value":%q}`, b64(key), revision, b64(value))
}

func world(revision int, kvs ...string) string {
	return fmt.Sprintf(`{"header":{"revision":"%d"},"kvs":[%s]}`, revision, strings.Join(kvs, ","))
}

func created(revision int) string {
	return fmt.Sprintf(`{"result":{"header":{"revision":"%d"},"created":true}}`+"\n", revision)
}

func events(revision int, kvs ...string) string {
	for i := range kvs {
		kvs[i] = `{"kv":` + kvs[i] + `}`
	}
	return fmt.Sprintf(`{"result":{"header":{"revision":%d},"events":[%s]}}`+"\n", revision, strings.Join(kvs, ","))
}

const dirKey = "/apisix/routes/"

func TestFollowsAStream(t *testing.T) {
	c, s := play(t, V3_18, world(5, kv(dirKey, 2, "init_dir"), kv(dirKey+"1", 3, `{"a":1}`)), []string{
		created(5), events(6, kv(dirKey+"2", 6, `{"a":2}`)), events(7, fmt.Sprintf(`{"key":%q,"mod_revision":"7"}`, b64(dirKey+"1"))),
	})
	if diff := cmp.Diff(map[string]string{dirKey + "2": `{"a":2}`}, c.Snapshot()); diff != "" {
		t.Error(diff)
	}
	if len(c.Faults()) > 0 || len(c.Reloads()) > 0 {
		t.Errorf("faults %v, reloads %v", c.Faults(), c.Reloads())
	}
	for i, want := range []string{`"start_revision":6`, `"start_revision":8`} {
		if !strings.Contains(s.bodies[i], want) {
			t.Errorf("watch %d: %s", i, s.bodies[i])
		}
	}
}

func TestFaultsOfServersAreFound(t *testing.T) {
	empty := world(5, kv(dirKey, 2, "init_dir"))
	progress := `{"result":{"header":{"revision":"9"}}}` + "\n"
	for name, test := range map[string]struct {
		watch []string
		fault string
	}{
		"a frame without events":         {[]string{created(5), progress}, "ipairs"},
		"an event before such a frame":   {[]string{created(5), events(6, kv(dirKey+"1", 6, "{}")) + progress}, "lost"},
		"an error without http_code":     {[]string{`{"error":{"code":14,"message":"x"}}` + "\n"}, "nil with number"},
		"a line that is not JSON":        {[]string{created(5), "garbage\n"}, "decode json"},
		"a frame without a line end":     {[]string{created(5), strings.TrimSpace(events(6, kv(dirKey+"1", 6, "{}")))}, "within a line"},
		"a frame without a revision":     {[]string{created(5), `{"result":{"events":[]}}` + "\n"}, "revision header"},
		"two frames of one revision and": {[]string{created(5), events(7, kv(dirKey+"1", 7, "{}")), events(7, kv(dirKey+"2", 7, "{}"))}, ""},
	} {
		c, _ := play(t, V3_18, empty, test.watch)
		faults := strings.Join(c.Faults(), "\n")
		if !strings.Contains(faults, test.fault) {
			t.Errorf("%s: faults %q", name, faults)
		}
		if reloads := c.NeedlessReloads(); test.fault == "" && (len(reloads) != 1 || reloads[0].Reason != "restarted") {
			t.Errorf("%s: reloads %+v", name, reloads)
		}
	}
}

func TestReloadsAreToldApart(t *testing.T) {
	canceled := `{"result":{"header":{},"canceled":true,"compact_revision":"%d"}}` + "\n"
	for name, test := range map[string]struct {
		watch  []string
		needed bool
	}{
		"history is gone":           {[]string{created(20), fmt.Sprintf(canceled, 10)}, true},
		"the future":                {[]string{created(3), fmt.Sprintf(canceled, 3)}, true},
		"history would be there":    {[]string{created(20), fmt.Sprintf(canceled, 6)}, false},
		"what it has just received": {[]string{created(5), events(30), fmt.Sprintf(canceled, 31)}, false},
	} {
		for _, version := range []string{V3_2, V3_18} {
			c, s := play(t, version, world(5, kv(dirKey, 2, "x")), test.watch)
			reloads := c.Reloads()
			if len(reloads) != 1 || reloads[0].Reason != "compacted" || reloads[0].Needed != test.needed {
				t.Errorf("%s, %s: %+v", name, version, reloads)
			}
			if len(s.bodies) != 2 {
				t.Errorf("%s, %s: %d watches", name, version, len(s.bodies))
			}
		}
	}
}

// Without the keys of the directories, versions before 3.11 lose the first object of each.
func TestOldVersionsDropTheFirstObject(t *testing.T) {
	for _, version := range Versions() {
		c, _ := play(t, version, world(5, kv(dirKey+"1", 3, "{}"), kv(dirKey+"2", 4, "{}")))
		want := map[string]string{dirKey + "1": "{}", dirKey + "2": "{}"}
		if version != V3_18 {
			delete(want, dirKey+"1")
		}
		if version == V2_15 { // where each directory reads and waits for itself
			err := c.WaitFor(t.Context(), func(got map[string]string) bool { return got[dirKey+"2"] == "{}" })
			if err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, c.Snapshot()); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}

// An equal mod_revision with another value is stale for ever.
func TestStaleValueIsFound(t *testing.T) {
	s := &script{ranged: world(5, kv(dirKey, 2, "x"), kv(dirKey+"1", 3, `{"new":1}`))}
	server := httptest.NewServer(s)
	defer server.Close()
	c, err := New(V3_18, server.URL, "/apisix")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect()
	for _, d := range c.dirs {
		if d.key+"/" != dirKey {
			continue
		}
		d.items = map[string]keyValue{dirKey + "1": {key: dirKey + "1", value: []byte(`{"old":1}`), modRevision: 3}}
		if err := c.loadDir(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Snapshot()[dirKey+"1"]; got != `{"old":1}` || len(c.Faults()) != 1 {
		t.Errorf("%s, faults %v", got, c.Faults())
	}
}

func TestNumbersAreLuas(t *testing.T) {
	for number, want := range map[luaNumber]string{
		0: "0", 56: "56", 1763800000123: "1763800000123", 99999999999999: "99999999999999",
		123456789012345: "1.2345678901234e+14",
	} {
		if got := number.String(); got != want {
			t.Errorf("%d: %s", number, got)
		}
	}
}

func TestNewRefusesWhatItCannotBe(t *testing.T) {
	for _, args := range [][2]string{{"4.0", "http://127.0.0.1:1"}, {V3_18, "https://127.0.0.1:1"}, {V3_18, "127.0.0.1:1"}} {
		if _, err := New(args[0], args[1], "/apisix"); err == nil {
			t.Errorf("%v", args)
		}
	}
}
