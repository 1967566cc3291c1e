package xds_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func copyFile(tb testing.TB, from, to string) {
	tb.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, to, string(content))
}

func TestTLSWithATokenConnects(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv, root := xdstest.NewTLSServer(t, "secret")
			srv.Set(xdstest.Mesh(2, 1).Resources()...)
			token := filepath.Join(t.TempDir(), "istio-token")
			write(t, token, "secret\n")
			_, o := connectWith(t, xds.Config{
				Address: srv.Addr(), StateOfTheWorld: world,
				TransportCredentials: xds.NewTLSCredentials(xds.TLSConfig{RootFile: root, ServerName: xdstest.ServerName}),
				PerRPCCredentials:    xds.NewTokenCredentials(token),
			})
			o.wait("first sync", everything)
		})
	}
}

// What is wrong is told with every attempt, and putting it right is enough.
func TestACredentialThatIsPutRightConnects(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, token, root string)
		want   string
	}{
		{"wrong token", func(t *testing.T, token, _ string) { t.Helper(); write(t, token, "expired") }, "istiod refuses this identity"},
		{"empty token", func(t *testing.T, token, _ string) { t.Helper(); write(t, token, "\n") }, "istio-token: file is empty"},
		{"no token", func(t *testing.T, token, _ string) { t.Helper(); os.Remove(token) }, "istio-token: no such file"},
		{"wrong root", func(t *testing.T, _, root string) {
			t.Helper()
			_, other := xdstest.NewTLSServer(t, "")
			copyFile(t, other, root)
		}, "certificate signed by unknown authority"},
		{"no root", func(t *testing.T, _, root string) { t.Helper(); os.Remove(root) }, "root-cert.pem: no such file"},
		{"no PEM", func(t *testing.T, _, root string) { t.Helper(); write(t, root, "?") }, "root-cert.pem holds no PEM certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv, goodRoot := xdstest.NewTLSServer(t, "secret")
			srv.Set(staticCluster("a"))
			token := filepath.Join(t.TempDir(), "istio-token")
			root := filepath.Join(t.TempDir(), "root-cert.pem")
			write(t, token, "secret")
			copyFile(t, goodRoot, root)
			test.damage(t, token, root)
			log := &records{}
			client, o := connectWith(t, xds.Config{
				Address: srv.Addr(), Logger: newLogger(log),
				TransportCredentials: xds.NewTLSCredentials(xds.TLSConfig{RootFile: root}),
				PerRPCCredentials:    xds.NewTokenCredentials(token),
			})

			awaitLog(t, log, test.want, 2)

			for _, line := range log.containing("") {
				if !strings.Contains(line, "target="+srv.Addr()) {
					t.Errorf("the line does not name the target: %s", line)
				}
				if strings.Contains(line, "secret") || strings.Contains(line, "expired") {
					t.Errorf("the line shows the token: %s", line)
				}
			}
			if s := client.Status(); s.Connected || s.LastError == nil {
				t.Errorf("status %+v", s)
			}
			write(t, token, "secret")
			copyFile(t, goodRoot, root)
			o.wait("first sync", everything)
		})
	}
}

func TestAServerOfAnotherNameIsRefused(t *testing.T) {
	srv, root := xdstest.NewTLSServer(t, "")
	log := &records{}
	connectWith(t, xds.Config{
		Address: srv.Addr(), Logger: newLogger(log),
		TransportCredentials: xds.NewTLSCredentials(xds.TLSConfig{RootFile: root, ServerName: "other.example"}),
	})
	awaitLog(t, log, "other.example", 1)
}

func TestATokenIsNotSentInPlaintext(t *testing.T) {
	srv := xdstest.NewServer(t)
	token := filepath.Join(t.TempDir(), "istio-token")
	write(t, token, "secret")
	log := &records{}
	connectWith(t, xds.Config{Address: srv.Addr(), Logger: newLogger(log), PerRPCCredentials: xds.NewTokenCredentials(token)})
	awaitLog(t, log, "transport", 1)
	if srv.Streams() > 0 {
		t.Error("a stream was opened")
	}
}

func TestAnUnreachableServerIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	log := &records{}
	connectWith(t, xds.Config{Address: address, Logger: newLogger(log)})
	awaitLog(t, log, "connection refused", 2)
	if lines := log.containing("target=" + address); len(lines) != len(log.containing("")) {
		t.Errorf("log: %q", log.containing(""))
	}
}
