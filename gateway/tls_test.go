package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/gateway"
)

// writePair writes a key pair as PEM files.
func writePair(t *testing.T, pair *tls.Certificate, cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		key:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// connects tells whether a put works for a client with the given trust and, unless nil, certificate.
func connects(t *testing.T, address string, trust *x509.CertPool, pair *tls.Certificate) bool {
	t.Helper()
	config := &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	// In TLS 1.3 a client learns only by reading that its certificate was refused.
	if _, err := conn.Write([]byte("GET /version HTTP/1.0\r\n\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 12)
	n, err := conn.Read(answer)
	return err == nil && strings.HasPrefix(string(answer[:n]), "HTTP/1.0 200")
}

func TestRotatedCertificatesNeedNoRestart(t *testing.T) {
	dir := t.TempDir()
	files := gateway.TLSFiles{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem"),
	}
	unused := filepath.Join(dir, "unused.pem")
	server1, trust1 := certificate(t)
	server2, trust2 := certificate(t)
	client1, _ := certificate(t)
	client2, _ := certificate(t)
	writePair(t, &server1, files.Cert, files.Key)
	writePair(t, &client1, files.ClientCA, unused)
	config, err := files.Config(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, gateway.Config{TLS: config})

	check := func(when string, trust *x509.CertPool, client *tls.Certificate, want bool) {
		t.Helper()
		if got := connects(t, s.addr, trust, client); got != want {
			t.Errorf("%s: connected %t, want %t", when, got, want)
		}
	}
	check("first certificates", trust1, &client1, true)
	check("no client certificate", trust1, nil, false)
	check("foreign client certificate", trust1, &client2, false)

	// gRPC takes the same way, and keeps its connection across the rotation.
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + s.addr}, DialTimeout: patience, TLS: &tls.Config{
		RootCAs: trust1, Certificates: []tls.Certificate{client1}, MinVersion: tls.VersionTLS12,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Put(within(t), "/a", "1"); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(files.Cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a file that does not load", trust1, &client1, true)
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	check("a file that is gone", trust1, &client1, true)

	writePair(t, &server2, files.Cert, files.Key)
	check("new certificate, old trust", trust1, &client1, false)
	check("new certificate", trust2, &client1, true)
	writePair(t, &client2, files.ClientCA, unused)
	check("client of the old CA", trust2, &client1, false)
	check("client of the new CA", trust2, &client2, true)
	if _, err := c.Put(within(t), "/a", "2"); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

func TestTLSFilesNameTheFileAtFault(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	pair, _ := certificate(t)
	writePair(t, &pair, path("cert"), path("key"))
	if err := os.WriteFile(path("text"), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string]gateway.TLSFiles{
		"needs a certificate and a key": {Cert: path("cert")},
		path("absent"):                  {Cert: path("cert"), Key: path("absent")},
		path("text") + " with key":      {Cert: path("text"), Key: path("key")},
		"client CA " + path("text"):     {Cert: path("cert"), Key: path("key"), ClientCA: path("text")},
	} {
		if _, err := files.Config(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q in it", files, err, want)
		}
	}
}
