package capture_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"meshbridge/capture"
	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// terminating makes a chain terminate TLS.
func terminating(t *testing.T, chain *translate.FilterChain) *translate.FilterChain {
	t.Helper()
	certificate, key := identitytest.PEM(t, identitytest.NewCA(t, "root").Issue(t, identitytest.Leaf{DNSNames: []string{"a.test"}}))
	dir := t.TempDir()
	credential := translate.Credential{CertificateFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for file, content := range map[string][]byte{credential.CertificateFile: certificate, credential.KeyFile: key} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	chain.TLS = &translate.DownstreamTLS{Credential: credential}
	return chain
}

// dialTLS connects to a listener and does the handshake.
func (f *fixture) dialTLS(listener string) *tls.Conn {
	f.t.Helper()
	conn := tls.Client(f.dial(listener), &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

func TestTheHeaderComesWithTheFirstDecryptedBytes(t *testing.T) {
	// In a write of its own it costs APISIX another wakeup.
	first := make(chan []byte, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := serveOn(t, l, false, func(_ *bufio.Reader, conn *net.TCPConn) {
		read := make([]byte, 8<<10)
		n, _ := conn.Read(read)
		first <- read[:n]
	})
	f := start(t, capture.Config{HTTP: b.addr}, bound("terminated", terminating(t, toHTTP("terminated"))))
	conn := f.dialTLS("terminated")
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	r := bytes.NewReader(<-first)
	if _, err := readHeader(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "GET / HTTP/1.1\r\n\r\n" {
		t.Errorf("with the header came %q", rest)
	}
}

func TestServersThatSpeakFirstSeeTheHeaderOfATerminatedConnection(t *testing.T) {
	b := serve(t, true, func(r *bufio.Reader, conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "220 ready")
		echo(r, conn)
	})
	f := start(t, capture.Config{}, bound("mail", terminating(t, toPort("mail", b))))
	conn := f.dialTLS("mail")
	greeting := make([]byte, 9)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "220 ready" {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	exchange(t, conn, "hello")
	if header := <-b.headers; header.tlvs[0xe0] != "mail" {
		t.Errorf("header %+v", header)
	}
}
