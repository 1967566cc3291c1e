package bridge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/translate"
	"meshbridge/xds/xdstest"
)

// filesTest is a gateway whose certificate for a.com is in files.
type filesTest struct {
	*pipelineTest
	chain, key string
}

func filesBubble(t *testing.T, test func(t *testing.T, f *filesTest)) {
	t.Helper()
	dir := t.TempDir()
	f := &filesTest{chain: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	bubbleIn(t, translate.Gateway(), 1, func() resolver { return nil }, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		f.pipelineTest = p
		for _, m := range xdstest.Gateway(8443, "a.com") {
			if l, ok := m.(*listenerpb.Listener); ok {
				l.GetFilterChains()[0].GetTransportSocket().ConfigType = &corepb.TransportSocket_TypedConfig{
					TypedConfig: xdstest.Any(&tlspb.DownstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{
						TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{{Name: "file-cert:" + f.chain + "~" + f.key}},
					}}),
				}
			}
			p.set(m)
		}
		test(t, f)
	})
}

func (f *filesTest) write(path string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// rotate writes a new certificate, and its key where that is wanted.
func (f *filesTest) rotate(withKey bool) (key []byte) {
	f.t.Helper()
	credential := xdstest.Credential("a.com").GetTlsCertificate()
	f.write(f.chain, credential.GetCertificateChain().GetInlineBytes())
	if withKey {
		f.write(f.key, credential.GetPrivateKey().GetInlineBytes())
	}
	return credential.GetPrivateKey().GetInlineBytes()
}

// ssls returns the events about ssl objects of all revisions.
func ssls(revisions [][]string) (all []string) {
	for _, events := range revisions {
		for _, e := range events {
			if strings.Contains(e, "/apisix/ssls/") && !strings.HasSuffix(e, " init_dir") {
				all = append(all, e)
			}
		}
	}
	return all
}

func TestACertificateInFilesIsThereWithTheFirstWorld(t *testing.T) {
	filesBubble(t, func(t *testing.T, f *filesTest) {
		t.Helper()
		f.rotate(true)
		f.deliver(nil, nil)
		if got := f.next(); len(got) != 1 || len(ssls(got)) != 1 {
			t.Errorf("%d revisions with the ssls %q, want one of each", len(got), ssls(got))
		}
		if got := f.pass(time.Hour); got != nil {
			t.Errorf("files that stay as they are were committed: %q", got)
		}
	})
}

func TestAReplacedFileIsServedWithinSeconds(t *testing.T) {
	filesBubble(t, func(t *testing.T, f *filesTest) {
		t.Helper()
		f.rotate(true)
		f.deliver(nil, nil)
		f.next()
		key := f.rotate(false)
		if got := f.pass(time.Minute); got != nil {
			t.Errorf("a certificate without its key was committed: %q", got)
		}
		f.write(f.key, key)
		if got := ssls(f.pass(2 * filePoll)); len(got) != 1 || !strings.HasPrefix(got[0], "put ") {
			t.Errorf("the new pair gave %q, want one put", got)
		}
		if err := os.Remove(f.key); err != nil {
			t.Fatal(err)
		}
		if got := f.pass(time.Minute); got != nil {
			t.Errorf("without its key, the certificate in use changed: %q", got)
		}
		f.deliver(f.set(xdstest.Gateway(8443, "b.com")[0]), nil)
		f.pass(time.Minute)
		if got := f.pipeline.files; len(got.secrets) != 0 || !got.due.IsZero() {
			t.Errorf("files that nothing needs any more are still held: %d, due %v", len(got.secrets), got.due)
		}
	})
}

func TestAServerWhoseFilesComeLateIsServedThen(t *testing.T) {
	filesBubble(t, func(t *testing.T, f *filesTest) {
		t.Helper()
		f.deliver(nil, nil)
		if !f.isReady() || len(ssls(f.next())) != 0 {
			t.Fatal("the world waits for a file, or has its certificate")
		}
		said := false
		for _, d := range f.pipeline.view.Load().Diagnostics {
			said = said || d.Code == "certificate_unavailable" && strings.Contains(d.Message, "cannot be read: open "+f.chain)
		}
		if !said {
			t.Error("nothing is said of the missing file")
		}
		f.rotate(true)
		if got := ssls(f.pass(time.Minute)); len(got) != 1 {
			t.Errorf("the certificate came, and gave %q", got)
		}
	})
}
