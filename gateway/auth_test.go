package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/crypto/bcrypt"

	"meshbridge/gateway"
	"meshbridge/gateway/apisixtest"
	"meshbridge/gateway/auth"
	"meshbridge/store"
)

// authority makes users root, and apisix, who may read what is below /apisix.
func authority(tb testing.TB) *auth.Authority {
	tb.Helper()
	a, err := auth.New(auth.Config{BcryptCost: bcrypt.MinCost})
	if err != nil {
		tb.Fatal(err)
	}
	ctx := tb.Context()
	if err := errors.Join(
		a.EnableWithRoot(ctx, "root"),
		a.UserAdd(ctx, auth.NewUser{Name: "apisix", Password: "apisix"}),
		a.RoleAdd("reader"),
		a.RoleGrantPermission("reader", &authpb.Permission{Key: []byte("/apisix"), RangeEnd: []byte("/apisiy")}),
		a.UserGrantRole("apisix", "reader"),
	); err != nil {
		tb.Fatal(err)
	}
	return a
}

// as is an etcd client that authenticates.
func as(tb testing.TB, s *server, user string) *clientv3.Client {
	tb.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.addr}, DialTimeout: patience, Username: user, Password: user})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func TestUsersMayDoWhatTheirRolesPermit(t *testing.T) {
	s := start(t, gateway.Config{Auth: authority(t)})
	ctx := within(t)
	root, apisix, nobody := as(t, s, "root"), as(t, s, "apisix"), etcdClient(t, s)
	lease, err := root.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Put(ctx, "/apisix/routes/1", "{}", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		client *clientv3.Client
		do     func(c *clientv3.Client) error
		want   error
	}{
		"nobody reads": {nobody, get("/apisix/"), rpctypes.ErrUserEmpty},
		"nobody grants a lease": {nobody, func(c *clientv3.Client) error {
			_, err := c.Grant(ctx, 60)
			return err
		}, rpctypes.ErrUserEmpty},
		"a reader reads":            {apisix, get("/apisix/"), nil},
		"a reader reads elsewhere":  {apisix, get("/other/"), rpctypes.ErrPermissionDenied},
		"a reader reads everything": {apisix, get(""), rpctypes.ErrPermissionDenied},
		"a reader writes": {apisix, func(c *clientv3.Client) error {
			_, err := c.Put(ctx, "/apisix/routes/1", "")
			return err
		}, rpctypes.ErrPermissionDenied},
		"a reader writes if nothing else": {apisix, func(c *clientv3.Client) error {
			_, err := c.Txn(ctx).Then(clientv3.OpGet("/apisix/a")).Else(clientv3.OpDelete("/apisix/a")).Commit()
			return err
		}, rpctypes.ErrPermissionDenied},
		"a reader revokes a lease with keys": {apisix, func(c *clientv3.Client) error {
			_, err := c.Revoke(ctx, lease.ID)
			return err
		}, rpctypes.ErrPermissionDenied},
		"a reader compacts": {apisix, func(c *clientv3.Client) error {
			_, err := c.Compact(ctx, 1)
			return err
		}, rpctypes.ErrPermissionDenied},
		"a reader adds a user": {apisix, func(c *clientv3.Client) error {
			_, err := c.UserAdd(ctx, "a", "b")
			return err
		}, rpctypes.ErrPermissionDenied},
		"a reader asks for its roles": {apisix, func(c *clientv3.Client) error {
			_, err := c.UserGet(ctx, "apisix")
			return err
		}, nil},
		"root reads everything": {root, get(""), nil},
	} {
		if err := test.do(test.client); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// get reads everything with a prefix.
func get(prefix string) func(*clientv3.Client) error {
	return func(c *clientv3.Client) error {
		_, err := c.Get(c.Ctx(), prefix, clientv3.WithPrefix())
		return err
	}
}

// Turning authentication on is a client's business, unless the server's users are fixed.
func TestClientTurnsAuthenticationOnAndOff(t *testing.T) {
	s := start(t, gateway.Config{})
	ctx := within(t)
	nobody := etcdClient(t, s)
	if _, err := nobody.AuthEnable(ctx); !errors.Is(err, rpctypes.ErrRootUserNotExist) {
		t.Errorf("without root: %v", err)
	}
	if _, err := nobody.UserAdd(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Get(ctx, "a"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("authentication is on, and nobody gets %v", err)
	}
	if _, err := as(t, s, "root").AuthDisable(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Get(ctx, "a"); err != nil {
		t.Errorf("authentication is off, and nobody gets %v", err)
	}

	users, err := auth.New(auth.Config{Fixed: true})
	if err != nil {
		t.Fatal(err)
	}
	fixed := etcdClient(t, start(t, gateway.Config{Auth: users}))
	if _, err := fixed.UserAdd(ctx, "root", "root"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("users are fixed, and adding one answers %v", err)
	}
	if _, err := fixed.AuthStatus(ctx); err != nil {
		t.Error(err)
	}
}

// request makes a call over HTTP with a header.
func request(t *testing.T, client *http.Client, url, name, value, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		r.Header.Set(name, value)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestTokensOverHTTP(t *testing.T) {
	users := authority(t)
	s := start(t, gateway.Config{Auth: users})
	put(t, s.store, "/apisix/routes/1", "{}")
	token, err := users.Authenticate(t.Context(), "apisix", "apisix")
	if err != nil {
		t.Fatal(err)
	}
	read := `{"key":"` + b64("/apisix/routes/1") + `"}`
	for name, test := range map[string]struct {
		path, header, value, body string
		status                    int
		want                      string
	}{
		"a token":               {"/v3/kv/range", "Authorization", token, read, 200, `"kvs":[`},
		"a bearer's":            {"/v3/kv/range", "Authorization", "Bearer " + token, read, 200, `"kvs":[`},
		"as gRPC's":             {"/v3/kv/range", "Grpc-Metadata-Token", token, read, 200, `"kvs":[`},
		"in a field of no use":  {"/v3/kv/range", "Token", token, read, 400, `"error":"etcdserver: user name is empty"`},
		"none":                  {"/v3/kv/range", "", "", read, 400, `"error":"etcdserver: user name is empty"`},
		"a wrong one":           {"/v3/kv/range", "Authorization", "x", read, 401, "etcdserver: invalid auth token"},
		"for too little":        {"/v3/kv/range", "Authorization", token, `{"key":"YQ=="}`, 403, "etcdserver: permission denied"},
		"for too much":          {"/v3/kv/range", "Authorization", token, `{"key":"AA==","range_end":"AA=="}`, 403, "etcdserver: permission denied"},
		"for no key":            {"/v3/kv/range", "", "", `{}`, 400, "etcdserver: key is not provided"},
		"in a generated path":   {"/v3/kv/put", "Authorization", token, read, 403, "etcdserver: permission denied"},
		"a wrong one elsewhere": {"/v3/kv/put", "Authorization", "x", read, 401, "etcdserver: invalid auth token"},
		"a wrong password":      {"/v3/auth/authenticate", "", "", `{"name":"apisix","password":"x"}`, 400, "etcdserver: authentication failed, invalid user ID or password"},
		"a password":            {"/v3/auth/authenticate", "", "", `{"name":"apisix","password":"apisix"}`, 200, `"token":"`},
	} {
		status, body := request(t, httpClient(t), s.url+test.path, test.header, test.value, test.body)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, body, test.status, test.want)
		}
	}
	if status, body := request(t, httpClient(t), s.url+"/version", "", "", ""); status == http.StatusBadRequest {
		t.Errorf("/version wants a token: %s", body)
	}
}

// A watch that is not permitted is cancelled as it is created, and its stream goes on.
func TestWatchWithoutPermission(t *testing.T) {
	s := start(t, gateway.Config{Auth: authority(t)})
	status, body := request(t, httpClient(t), s.url+"/v3/auth/authenticate", "", "", `{"name":"apisix","password":"apisix"}`)
	if status != http.StatusOK {
		t.Fatal(body)
	}
	w := watchRaw(t, s, `{"create_request":{"key":"`+b64("/apisix/")+`"}}`)
	if f := w.frame(); !f.Result.Canceled || f.Result.WatchID != -1 ||
		f.Result.CancelReason != "rpc error: code = InvalidArgument desc = etcdserver: user name is empty" {
		t.Errorf("nobody's watch: %+v", f)
	}
	stream, err := pb.NewWatchClient(as(t, s, "apisix").ActiveConnection()).Watch(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ key, reason string }{
		{"/other", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"}, {"/apisix/a", ""},
	} {
		create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(test.key)}}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: create}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil || r.GetCancelReason() != test.reason || !r.GetCreated() {
			t.Errorf("watch of %s: %v, %v", test.key, r, err)
		}
	}
}

// Whoever may not read a range does not wait until it is there.
func TestHoldIsForThoseWhoMayRead(t *testing.T) {
	released := make(chan struct{})
	s := start(t, gateway.Config{Auth: authority(t), Hold: func([]byte, []byte) <-chan struct{} { return released }})
	ctx := within(t)
	if _, err := etcdClient(t, s).Get(ctx, "/apisix/a"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("nobody: %v", err)
	}
	reader := as(t, s, "apisix")
	answered := make(chan error, 1)
	go func() {
		_, err := reader.Get(ctx, "/apisix/a")
		answered <- err
	}()
	close(released)
	if err := <-answered; err != nil {
		t.Errorf("a reader: %v", err)
	}
}

// clientCertificate is signed by the certificate of certificate.
func clientCertificate(t *testing.T, ca tls.Certificate, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The name in a client's certificate is its user over gRPC. Over HTTP it is refused, as long as it would
// mean something.
func TestCommonNameOfACertificateIsAUser(t *testing.T) {
	pair, pool := certificate(t)
	for required, clientAuth := range map[bool]tls.ClientAuthType{true: tls.RequireAndVerifyClientCert, false: tls.VerifyClientCertIfGiven} {
		s := start(t, gateway.Config{Auth: authority(t), TLS: &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: clientAuth, MinVersion: tls.VersionTLS12,
		}})
		for name, test := range map[string]struct {
			grpc error
			http string
		}{
			"apisix": {nil, "CommonName of client sending a request against gateway will be ignored and not used as expected"},
			"nobody": {rpctypes.ErrPermissionDenied, "CommonName of client sending a request against gateway will be ignored and not used as expected"},
			"":       {rpctypes.ErrPermissionDenied, "etcdserver: user name is empty"},
		} {
			if !required {
				test.grpc, test.http = rpctypes.ErrUserEmpty, "etcdserver: user name is empty"
			}
			config := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{clientCertificate(t, pair, name)}, MinVersion: tls.VersionTLS12}
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + s.addr}, DialTimeout: patience, TLS: config})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Get(within(t), "/apisix/a"); !errors.Is(err, test.grpc) {
				t.Errorf("required %t, gRPC as %q: %v, want %v", required, name, err, test.grpc)
			}
			_ = c.Close()
			for alpn, protocols := range map[string][]string{"with ALPN": {"http/1.1"}, "without": nil} {
				transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					config := config.Clone()
					config.NextProtos = protocols
					return (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
				}}
				status, body := request(t, &http.Client{Transport: transport, Timeout: patience},
					"https://"+s.addr+"/v3/kv/range", "", "", `{"key":"YQ=="}`)
				transport.CloseIdleConnections()
				if status != http.StatusBadRequest || !strings.Contains(body, test.http) {
					t.Errorf("required %t, HTTP %s as %q: %d %s, want %q", required, alpn, name, status, body, test.http)
				}
			}
		}
	}
}

// APISIX with a user and a password gets a new token before the old one ends, and when the server has
// forgotten it.
func TestAPISIXAuthenticates(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		users := authority(t)
		st := newStore(t, store.Config{})
		seed(t, st)
		s := start(t, gateway.Config{Store: st, Auth: users})
		c := runAPISIX(t, version, s.url, func(c *apisixtest.Client) {
			c.User, c.Password, c.TokenAge = "apisix", "apisix", 50*time.Millisecond
			// A watch that is cancelled for its token says nothing more; 2.15 notices by that.
			c.WatchTimeout = 500 * time.Millisecond
		})
		put(t, st, "/apisix/routes/1", `{"uri":"/a"}`)
		converge(t, c, st)
		if err := users.Restore(users.State()); err != nil { // no token is valid any more
			t.Fatal(err)
		}
		c.Disconnect()
		put(t, st, "/apisix/routes/1", `{"uri":"/b"}`)
		converge(t, c, st)
	})
}

func TestInitEtcdAuthenticates(t *testing.T) {
	s := start(t, gateway.Config{Auth: authority(t)})
	for user, want := range map[string]string{"root": "", "apisix": "permission denied", "stranger": "authentication failed", "": "user name is empty"} {
		c, err := apisixtest.New(apisixtest.V3_18, s.url, "/apisix")
		if err != nil {
			t.Fatal(err)
		}
		c.User, c.Password = user, user
		err = c.InitEtcd(within(t), false)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("as %q: %v, want %q", user, err, want)
		}
	}
}
