package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"
)

// authorityFiles are a certificate authority and the server's certificate.
type authorityFiles struct {
	certificate   *x509.Certificate
	key           *ecdsa.PrivateKey
	ca, cert, pem string
}

func newAuthorityFiles(t *testing.T) *authorityFiles {
	t.Helper()
	dir := t.TempDir()
	a := &authorityFiles{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), pem: filepath.Join(dir, "key.pem")}
	pair := a.issue(t, "authority")
	var err error
	if a.certificate, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	a.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	server := a.issue(t, "server")
	der, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		a.ca:   {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
		a.cert: {Type: "CERTIFICATE", Bytes: server.Certificate[0]},
		a.pem:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// issue makes a certificate for a name; the first one signs itself.
func (a *authorityFiles) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	issuer, signer := a.certificate, a.key
	if issuer == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		issuer, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authorityFiles) config(t *testing.T, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{a.issue(t, name)}, MinVersion: tls.VersionTLS12}
}

// startBothTLS runs both servers such that clients have to show certificates.
func startBothTLS(t *testing.T, a *authorityFiles) (etcd, meshbridge server) {
	t.Helper()
	client, peer := freeAddress(t), freeAddress(t)
	run(t, programs.etcd, "", authFlags(
		"--data-dir", t.TempDir(), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "https://"+client, "--advertise-client-urls", "https://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer,
		"--cert-file", a.cert, "--key-file", a.pem, "--trusted-ca-file", a.ca, "--client-cert-auth",
	)...)
	return server{"etcd", client}, startMeshbridge(t, authFlags("--listen-cert", a.cert, "--listen-key", a.pem, "--listen-client-ca", a.ca)...)
}

// The name in a client's certificate is a user over gRPC, and is refused over
// HTTP while it would be one.
func TestNamesInCertificatesMeanWhatTheyMeanToEtcd(t *testing.T) {
	t.Parallel()
	a := newAuthorityFiles(t)
	etcd, meshbridge := startBothTLS(t, a)
	var stories []string
	for _, s := range []server{etcd, meshbridge} {
		var story strings.Builder
		as := func(name string) *clientv3.Client {
			c, err := clientv3.New(clientv3.Config{
				Endpoints: []string{"https://" + s.address}, DialTimeout: patience, TLS: a.config(t, name), Logger: zap.NewNop(),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		note := func(what string, err error) { fmt.Fprintf(&story, "%s: %v\n", what, err) }
		request := func(what, name, path, body string) {
			transport := &http.Transport{TLSClientConfig: a.config(t, name)}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.address+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", "*/*") // see userOfTheGateway
			response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			answer := string(text)
			if response.StatusCode == http.StatusOK {
				answer = "fine"
			} else if strings.HasPrefix(answer, "{") {
				answer = asEtcd(t, text, errorOfOldGateway)
			}
			fmt.Fprintf(&story, "%s as %q: %d %s\n", what, name, response.StatusCode, answer)
		}
		root := as("root")
		_, err := root.Get(ctx, "before", clientv3.WithSerializable()) // an etcd serves once it has elected itself
		note("before", err)
		request("range without authentication", "alice", "/v3/kv/range", `{"key":"YQ=="}`)
		_, err = root.UserAddWithOptions(ctx, "root", "", &clientv3.UserAddOptions{NoPassword: true})
		note("add root", err)
		_, err = root.UserGrantRole(ctx, "root", "root")
		note("grant root", err)
		_, err = root.UserAddWithOptions(ctx, "alice", "", &clientv3.UserAddOptions{NoPassword: true})
		note("add alice", err)
		_, err = root.RoleAdd(ctx, "writer")
		note("add role", err)
		_, err = root.RoleGrantPermission(ctx, "writer", "a", "c", clientv3.PermissionType(clientv3.PermReadWrite))
		note("grant", err)
		_, err = root.UserGrantRole(ctx, "alice", "writer")
		note("grant alice", err)
		_, err = root.AuthEnable(ctx)
		note("enable", err)
		for _, name := range []string{"root", "alice", "stranger", ""} {
			c := as(name)
			_, err = c.Put(ctx, "a", "1")
			note(name+" puts a", err)
			_, err = c.Put(ctx, "z", "1")
			note(name+" puts z", err)
			_, err = c.UserList(ctx)
			note(name+" lists users", err)
			_, err = c.MemberList(ctx)
			note(name+" lists members", err)
			_, err = c.Grant(ctx, 600)
			note(name+" grants a lease", err)
			watched := <-c.Watch(ctx, "z", clientv3.WithCreatedNotify())
			note(name+" watches z", watched.Err())
			// A proxy's certificate is not that of whom it speaks for.
			_, err = c.Put(metadata.AppendToOutgoingContext(ctx, "grpcgateway-accept", "x"), "a", "1")
			note(name+" puts a by a proxy", err)
			request("range", name, "/v3/kv/range", `{"key":"YQ=="}`)
			request("user list", name, "/v3/auth/user/list", `{}`)
			request("elsewhere", name, "/version", "")
		}
		stories = append(stories, strings.ReplaceAll(story.String(), s.address, "ADDRESS"))
	}
	if diff := cmp.Diff(stories[0], stories[1]); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
}
