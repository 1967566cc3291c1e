package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyFiles writes a key pair and returns the files.
func keyFiles(t *testing.T, key crypto.Signer) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		must(t, err)
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	private = write("key.pem", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	return private, write("pub.pem", "PUBLIC KEY", der, err)
}

func TestJWTOfEveryMethod(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	elliptical := func(curve elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		must(t, err)
		return key
	}
	for method, key := range map[string]crypto.Signer{
		"RS256": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey,
		"ES256": elliptical(elliptic.P256()), "ES384": elliptical(elliptic.P384()), "ES512": elliptical(elliptic.P521()),
		"EdDSA": edKey,
	} {
		t.Run(method, func(t *testing.T) {
			private, public := keyFiles(t, key)
			signer := enabled(t, Config{Token: "jwt,sign-method=" + method + ",priv-key=" + private + ",pub-key=" + public})
			token := login(t, signer, "alice")
			if who, err := signer.Identify(signer.View(), token); err != nil || who.User != "alice" || who.Revision != signer.All().Revision() {
				t.Errorf("%+v, %v", who, err)
			}
			verifier := enabled(t, Config{Token: "jwt,sign-method=" + method + ",pub-key=" + public})
			if who, err := verifier.Identify(verifier.View(), token); err != nil || who.User != "alice" {
				t.Errorf("by the public key: %+v, %v", who, err)
			}
			if _, err := verifier.Authenticate(t.Context(), "alice", "alice"); !errors.Is(err, ErrVerifyOnly) {
				t.Errorf("signing with the public key: %v", err)
			}
			other := "RS256"
			if strings.HasPrefix(method, "RS") || strings.HasPrefix(method, "PS") {
				other = "ES256"
			}
			if _, err := New(Config{Token: "jwt,sign-method=" + other + ",priv-key=" + private}); err == nil {
				t.Errorf("a key of %s is accepted for %s", method, other)
			}
		})
	}
	private, _ := keyFiles(t, elliptical(elliptic.P384()))
	if _, err := New(Config{Token: "jwt,sign-method=ES256,priv-key=" + private}); err == nil {
		t.Error("a curve that the method cannot sign with is accepted")
	}
	_, foreign := keyFiles(t, edKey)
	private, _ = keyFiles(t, rsaKey)
	if _, err := New(Config{Token: "jwt,sign-method=RS256,priv-key=" + private + ",pub-key=" + foreign}); err == nil {
		t.Error("keys that do not belong together are accepted")
	}
}

func TestJWTEndsWithItsRevisionAndItsTime(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("a secret of some length"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		a := enabled(t, Config{Token: "jwt,sign-method=HS256,priv-key=" + secret + ",ttl=1m"})
		token := login(t, a, "alice")
		must(t, a.RoleAdd("another"))
		who, err := a.Identify(a.View(), token)
		must(t, err)
		if err := a.View().Read(who, []byte("a"), nil); !errors.Is(err, ErrOldRevision) {
			t.Errorf("after a change: %v", err)
		}
		token = login(t, a, "alice")
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the clock is synctest's
		if _, err := a.Identify(a.View(), token); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("after its time: %v", err)
		}
	})
}

func TestForgedJWTIsInvalid(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("a secret of some length"), 0o600))
	a := enabled(t, Config{Token: "jwt,sign-method=HS256,priv-key=" + secret})
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		must(t, err)
		return token
	}
	good := jwt.MapClaims{"username": "root", "revision": 1}
	for name, token := range map[string]string{
		"unsigned":       sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good),
		"another secret": sign(jwt.SigningMethodHS256, []byte("guess"), good),
		"another method": sign(jwt.SigningMethodHS512, []byte("a secret of some length"), good),
		"no user":        sign(jwt.SigningMethodHS256, []byte("a secret of some length"), jwt.MapClaims{"revision": 1}),
		"no revision":    sign(jwt.SigningMethodHS256, []byte("a secret of some length"), jwt.MapClaims{"username": "root"}),
		"odd revision":   sign(jwt.SigningMethodHS256, []byte("a secret of some length"), jwt.MapClaims{"username": "root", "revision": -1}),
		"no JWT":         "abc",
	} {
		if who, err := a.Identify(a.View(), token); !errors.Is(err, ErrInvalidToken) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	if _, err := a.Identify(a.View(), sign(jwt.SigningMethodHS256, []byte("a secret of some length"), good)); err != nil {
		t.Errorf("the model of the forgeries: %v", err)
	}
}
