package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"meshbridge/gateway/auth"
)

// What is served may hold private keys: off loopback it takes TLS, and clients that say who they are.
func TestListeningOffLoopbackNeedsTLSAndAuthentication(t *testing.T) {
	users := func(enabled bool) *auth.Authority {
		a, err := auth.New(auth.Config{BcryptCost: bcrypt.MinCost})
		if err != nil {
			t.Fatal(err)
		}
		if enabled {
			if err := a.EnableWithRoot(t.Context(), "root"); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	plain, mutual := &tls.Config{MinVersion: tls.VersionTLS12}, &tls.Config{MinVersion: tls.VersionTLS12, ClientCAs: x509.NewCertPool()}
	for name, test := range map[string]struct {
		config Config
		want   bool
	}{
		"nothing":               {Config{}, false},
		"TLS":                   {Config{TLS: plain}, false},
		"TLS, passwords off":    {Config{TLS: plain, Auth: users(false)}, false},
		"passwords in clear":    {Config{Auth: users(true)}, false},
		"TLS and passwords":     {Config{TLS: plain, Auth: users(true)}, true},
		"TLS with certificates": {Config{TLS: mutual}, true},
		"said to be fine":       {Config{InsecureListen: true}, true},
		"everything":            {Config{TLS: mutual, Auth: users(true)}, true},
	} {
		test.config.Prefix, test.config.Listen = "/apisix", "0.0.0.0:2379"
		if err := test.config.validate(); (err == nil) != test.want {
			t.Errorf("%s: %v, want accepted: %t", name, err, test.want)
		}
	}
}
