package translate

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// A case is a txtar file: a comment, then
//
//	-- options.yaml --   profile (default mesh), apisix_version, node, metadata, allow_unenforced, internal,
//	                     bridge_access_logs, no_access_logs, certificates and authorities (by
//	                     name of a secret, with new keys each time; file-cert: and file-root: are in files),
//	                     file_errors, capture (with numbers for it, and its
//	                     table in what is wanted); may be left out
//	-- xds.yaml --       a list of resources; without a listener, the first route configuration is
//	                     served on one for 0.0.0.0:80
//	-- want.yaml --      routes, plugin_configs, upstreams and ssls without ids and labels, the access logs of chains
//	                     that APISIX does not write, and diagnostics
type caseOptions struct {
	Profile       string `json:"profile"`
	APISIXVersion string `json:"apisix_version"`
	Node          string `json:"node"`
	// Metadata is that of the node.
	Metadata        map[string]any `json:"metadata"`
	AllowUnenforced []Code         `json:"allow_unenforced"`
	InstanceIPs     []string       `json:"instance_ips"`
	// Internal is where the bridge answers APISIX.
	Internal string `json:"internal"`
	// BridgeAccessLogs has all access logs written by the bridge, NoAccessLogs none.
	BridgeAccessLogs bool `json:"bridge_access_logs"`
	NoAccessLogs     bool `json:"no_access_logs"`
	// Certificates are the DNS names of secrets with a certificate.
	Certificates map[string][]string `json:"certificates"`
	Authorities  []string            `json:"authorities"`
	// FileErrors say why secrets in files could not be read.
	FileErrors map[string]string `json:"file_errors"`
	// RSA lists those of Certificates that have RSA keys; the others have ECDSA ones.
	RSA []string `json:"rsa"`
	// Capture gives out numbers for capture.
	Capture bool `json:"capture"`
}

func (o caseOptions) options(tb testing.TB) Options {
	tb.Helper()
	profile, err := ParseProfile(cmp.Or(o.Profile, "mesh"), Options{})
	if err != nil {
		tb.Fatal(err)
	}
	opts := Options{
		Profile: profile, NodeID: o.Node, AllowUnenforced: o.AllowUnenforced,
		BridgeAccessLogs: o.BridgeAccessLogs, NoAccessLogs: o.NoAccessLogs,
	}
	if o.Metadata != nil {
		if opts.Metadata, err = structpb.NewStruct(o.Metadata); err != nil {
			tb.Fatal(err)
		}
	}
	if o.APISIXVersion != "" {
		if opts.APISIXVersion, err = apisix.ParseVersion(o.APISIXVersion); err != nil {
			tb.Fatal(err)
		}
	}
	if o.Internal != "" {
		opts.Internal = netip.MustParseAddrPort(o.Internal)
	}
	for _, ip := range o.InstanceIPs {
		opts.InstanceIPs = append(opts.InstanceIPs, netip.MustParseAddr(ip))
	}
	return opts
}

// secrets returns Certificates and Authorities: resources, and those that are in files.
func (o caseOptions) secrets(tb testing.TB) (sent []*xds.Resource, files map[string]*tlspb.Secret) {
	tb.Helper()
	ca := newAuthority(tb)
	files = map[string]*tlspb.Secret{}
	add := func(r *xds.Resource) {
		if _, ok := secretInFiles(r.Name); !ok {
			sent = append(sent, r)
			return
		}
		secret, err := xds.Decode[*tlspb.Secret](r)
		if err != nil {
			tb.Fatal(err)
		}
		files[r.Name] = secret
	}
	for name, hosts := range o.Certificates {
		key := newKey(tb)
		if slices.Contains(o.RSA, name) {
			key = newRSAKey(tb)
		}
		add(ca.certificate(tb, name, key, hosts...))
	}
	for _, name := range o.Authorities {
		add(ca.authorities(tb, name))
	}
	return sent, files
}

// loadYAML returns a snapshot of a list of resources in YAML.
func loadYAML(tb testing.TB, resources string) *xds.Snapshot {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "xds.yaml")
	if err := os.WriteFile(path, []byte(resources), 0o600); err != nil {
		tb.Fatal(err)
	}
	snap, rejected, err := xds.LoadFiles(path)
	if err != nil || len(rejected) > 0 {
		tb.Fatalf("%v, rejected %v", err, rejected)
	}
	if snap.Len(xds.ListenerType) == 0 {
		for r := range snap.All(xds.RouteType) {
			return snap.With([]*xds.Resource{outboundListener(tb, "0.0.0.0", 80, r.Name)}, nil)
		}
	}
	return snap
}

func TestCases(t *testing.T) {
	files, err := filepath.Glob("../testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if base := filepath.Base(file); strings.HasPrefix(base, "action-") || strings.HasPrefix(base, "cluster-") {
			continue // cases of actions and clusters have a form of their own
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var options caseOptions
			var resources string
			want := -1
			for i, f := range archive.Files {
				switch f.Name {
				case "options.yaml":
					if err := yaml.UnmarshalStrict(f.Data, &options); err != nil {
						t.Fatal(err)
					}
				case "xds.yaml":
					resources = string(f.Data)
				case "want.yaml":
					want = i
				default:
					t.Fatalf("%s has an unknown part %s", file, f.Name)
				}
			}
			secrets, files := options.secrets(t)
			snap := loadYAML(t, resources).With(secrets, nil)
			var got []byte
			if options.Capture {
				s := captured(t, options.options(t), snap)
				got = append(renderCapture(t, s), renderCase(t, s)...)
			} else {
				got = renderCase(t, translatedWith(t, options.options(t), snap, Inputs{Files: files, FileErrors: options.FileErrors}))
			}
			if *update {
				if want < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "want.yaml"})
					want = len(archive.Files) - 1
				}
				archive.Files[want].Data = got
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatalf("%s has no want.yaml; run with -update", file)
			}
			if diff := gocmp.Diff(strings.Split(string(archive.Files[want].Data), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// renderCase shows routes in the order in which APISIX prefers them within a path.
func renderCase(tb testing.TB, s *State) []byte {
	tb.Helper()
	doc := struct {
		Routes      []*apisix.Route        `json:"routes,omitempty"`
		Configs     []*apisix.PluginConfig `json:"plugin_configs,omitempty"`
		Upstreams   []*apisix.Upstream     `json:"upstreams,omitempty"`
		SSLs        []*apisix.SSL          `json:"ssls,omitempty"`
		Streams     []*apisix.StreamRoute  `json:"stream_routes,omitempty"`
		AccessLogs  map[string][]string    `json:"access_logs,omitempty"`
		Rules       []json.RawMessage      `json:"global_rules,omitempty"`
		Diagnostics []string               `json:"diagnostics,omitempty"`
	}{AccessLogs: map[string][]string{}}
	names := map[string]string{}
	for o := range s.Objects() {
		switch o.Kind {
		case apisix.KindRoute:
			r := new(apisix.Route)
			decodeJSON(tb, o.Value, r)
			maps.DeleteFunc(r.Labels, func(name, _ string) bool { return name != labelQuiet })
			doc.Routes = append(doc.Routes, r)
		case apisix.KindPluginConfig:
			c := new(apisix.PluginConfig)
			decodeJSON(tb, o.Value, c)
			names[o.ID] = c.Name
			c.ID, c.Labels = "", nil
			doc.Configs = append(doc.Configs, c)
		case apisix.KindUpstream:
			u := new(apisix.Upstream)
			decodeJSON(tb, o.Value, u)
			names[o.ID] = u.Name
			u.ID, u.Labels = "", nil
			doc.Upstreams = append(doc.Upstreams, u)
		case apisix.KindSSL:
			ssl := new(apisix.SSL)
			decodeJSON(tb, o.Redacted().Value, ssl)
			ssl.ID, ssl.Labels = "", nil
			describeCertificates(tb, ssl)
			doc.SSLs = append(doc.SSLs, ssl)
		case apisix.KindStreamRoute:
			r := new(apisix.StreamRoute)
			decodeJSON(tb, o.Value, r)
			r.ID, r.Labels = "", nil
			doc.Streams = append(doc.Streams, r)
		case apisix.KindGlobalRule:
			doc.Rules = append(doc.Rules, firstLines(tb, o))
		default:
			tb.Fatalf("cases cannot show %s", o.Key())
		}
	}
	for _, r := range doc.Routes {
		r.ID = ""
		if r.UpstreamID != "" {
			r.UpstreamID = names[r.UpstreamID]
		}
		if r.PluginConfigID != "" {
			r.PluginConfigID = names[r.PluginConfigID]
		}
	}
	for _, r := range doc.Streams {
		r.UpstreamID = names[r.UpstreamID]
	}
	slices.SortStableFunc(doc.Routes, func(a, b *apisix.Route) int {
		if c := slices.Compare(a.Hosts, b.Hosts); c != 0 {
			return -c
		}
		return b.Priority - a.Priority
	})
	for _, c := range s.Chains() {
		for _, log := range c.AccessLogs {
			doc.AccessLogs[c.Key] = append(doc.AccessLogs[c.Key], log.String())
		}
	}
	for _, d := range s.Diagnostics() {
		if d.Code == "request_normalization" {
			continue // that is so in every case
		}
		doc.Diagnostics = append(doc.Diagnostics, d.String())
	}
	out := encodeYAML(tb, doc)
	return []byte(strings.ReplaceAll(strings.ReplaceAll(string(out), "- id: \"\"\n  ", "- "), "\n  id: \"\"", ""))
}

func decodeJSON(tb testing.TB, raw []byte, v any) {
	tb.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		tb.Fatal(err)
	}
}
