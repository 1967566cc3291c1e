package bridge

import (
	"log/slog"
	"maps"
	"os"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate"
	"meshbridge/xds"
)

// filePoll is how often the files of secrets are read again. They are few and small, and kubelet takes a
// minute to replace those of a volume.
const filePoll = 5 * time.Second

// files keeps the secrets read that are in files of this host. It is owned by the pipeline. As with the
// agent beside Envoy, the last good content of a secret stays while its files cannot be used, such as a
// certificate whose key is yet to be written.
type files struct {
	// set once
	state *translate.State // which says what is needed
	read  func(path string) ([]byte, error)
	log   *slog.Logger

	listeners map[string][]translate.FileSecret
	// stale tells that secrets may be held that no listener has any more: an older version of it, which
	// is the one that is translated, may have.
	stale bool
	// due is when the files are read again; zero where there are none.
	due time.Time
	// secrets and errors are translate.Inputs.Files and FileErrors, replaced and never modified.
	secrets map[string]*tlspb.Secret
	errors  map[string]string
	failing map[string]string // errors of the last attempt, those with a last good content included
}

func newFiles(state *translate.State, log *slog.Logger) *files {
	return &files{state: state, read: os.ReadFile, log: log, listeners: map[string][]translate.FileSecret{}, failing: map[string]string{}}
}

// receive looks for secrets in the listeners that changed, or in all before the first world, and reads
// those that are new, so that they are there when the listeners are translated.
func (f *files) receive(now time.Time, s *xds.Snapshot, changed []xds.Key, started bool) {
	added := false
	if !started {
		clear(f.listeners)
		for r := range s.All(xds.ListenerType) {
			added = f.take(r) || added
		}
	}
	for _, k := range changed {
		if k.Type != xds.ListenerType {
			continue
		}
		f.stale = f.stale || len(f.listeners[k.Name]) > 0
		delete(f.listeners, k.Name)
		if r := s.Get(k); r != nil {
			added = f.take(r) || added
		}
	}
	if added {
		f.readAll(now)
	}
}

func (f *files) take(r *xds.Resource) (any bool) {
	l, err := xds.Decode[*listenerpb.Listener](r)
	if err != nil {
		return false // package xds has validated it
	}
	secrets := f.state.FileSecrets(l)
	if len(secrets) > 0 {
		f.listeners[r.Name] = secrets
	}
	return len(secrets) > 0
}

// step reads the files again when that is due, and tells whether they hold something else.
func (f *files) step(now time.Time) bool {
	return !f.due.IsZero() && !now.Before(f.due) && f.readAll(now)
}

// readAll reads all files, and tells whether the secrets differ from before.
func (f *files) readAll(now time.Time) bool {
	secrets, errors := maps.Clone(f.secrets), map[string]string{}
	if secrets == nil {
		secrets = map[string]*tlspb.Secret{}
	}
	failing := map[string]string{}
	f.due = time.Time{}
	for _, list := range f.listeners {
		for _, in := range list {
			f.due = now.Add(filePoll)
			secret, err := in.Read(f.read)
			held := secrets[in.Name]
			switch {
			case err == nil && !proto.Equal(secret, held):
				secrets[in.Name] = secret
			case err == nil:
			default:
				failing[in.Name] = err.Error()
				if held == nil {
					errors[in.Name] = err.Error()
				}
				if f.failing[in.Name] != err.Error() {
					f.log.Warn("secret cannot be read from its files", slog.String("secret", in.Name),
						slog.Any("error", err), slog.Bool("last_content_kept", held != nil))
				}
			}
		}
	}
	f.failing = failing
	if maps.Equal(secrets, f.secrets) && maps.Equal(errors, f.errors) {
		return false
	}
	f.secrets, f.errors = secrets, errors
	return true
}

// settle forgets the secrets that no listener has any more, when the newest of all listeners are
// translated.
func (f *files) settle() {
	if !f.stale {
		return
	}
	f.stale = false
	wanted := map[string]bool{}
	for _, list := range f.listeners {
		for _, in := range list {
			wanted[in.Name] = true
		}
	}
	unwanted := func(name string) bool { return !wanted[name] }
	secrets, errors := maps.Clone(f.secrets), maps.Clone(f.errors)
	maps.DeleteFunc(secrets, func(name string, _ *tlspb.Secret) bool { return unwanted(name) })
	maps.DeleteFunc(errors, func(name, _ string) bool { return unwanted(name) })
	if len(secrets) != len(f.secrets) || len(errors) != len(f.errors) {
		f.secrets, f.errors = secrets, errors
	}
	if len(wanted) == 0 {
		f.due = time.Time{}
	}
}
