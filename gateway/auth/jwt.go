package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// jwtTokens are signed and carry the user's name and the auth revision; the server keeps nothing. Once
// anything about users or roles has changed they are good for administration only, and clients get new
// ones.
type jwtTokens struct {
	method jwt.SigningMethod
	sign   any // nil: tokens can only be verified
	verify any
	ttl    time.Duration
	parser *jwt.Parser
}

// claims are etcd's.
type claims struct {
	Username *string  `json:"username"`
	Revision *float64 `json:"revision"`
	jwt.RegisteredClaims
}

// newJWT takes the options of etcd's --auth-token jwt: sign-method, priv-key and pub-key (files in PEM; the
// secret itself for HS methods), and ttl.
func newJWT(options map[string]string) (*jwtTokens, error) {
	t := &jwtTokens{ttl: defaultTokenTTL}
	var private, public []byte
	for name, value := range options {
		var err error
		switch name {
		case "sign-method":
			t.method = jwt.GetSigningMethod(value)
		case "priv-key":
			private, err = os.ReadFile(value)
		case "pub-key":
			public, err = os.ReadFile(value)
		case "ttl":
			if t.ttl, err = time.ParseDuration(value); err == nil && t.ttl <= 0 {
				err = errors.New("must be positive")
			}
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return nil, fmt.Errorf("auth: jwt option %s=%s: %w", name, value, err)
		}
	}
	if t.method == nil {
		return nil, fmt.Errorf("auth: jwt option sign-method=%s: want one of RS, PS, ES or HS with 256, 384 or 512, or EdDSA", options["sign-method"])
	}
	if err := t.setKeys(private, public); err != nil {
		return nil, fmt.Errorf("auth: keys of jwt %s: %w", t.method.Alg(), err)
	}
	t.parser = jwt.NewParser(jwt.WithValidMethods([]string{t.method.Alg()}))
	if t.sign == nil {
		return t, nil
	}
	// A key can be of the right kind and still not do for the method, by its curve or size.
	if probe, err := t.issue(rootName, 1); err != nil {
		return nil, fmt.Errorf("auth: signing with jwt %s: %w", t.method.Alg(), err)
	} else if _, ok := t.resolve(probe, 1); !ok {
		return nil, fmt.Errorf("auth: jwt %s: the keys do not verify what they sign", t.method.Alg())
	}
	return t, nil
}

// publicKey is what the public keys of the standard library have in common.
type publicKey interface{ Equal(x crypto.PublicKey) bool }

// setKeys reads the keys that the method takes. The public one follows from the private one; given alone
// it can verify tokens that somebody else makes.
func (t *jwtTokens) setKeys(private, public []byte) error {
	var (
		own, given publicKey
		err        error
	)
	parse := func(pem []byte, read func([]byte) error) {
		if len(pem) > 0 && err == nil {
			err = read(pem)
		}
	}
	switch t.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return errors.New("priv-key: missing")
		}
		t.sign, t.verify = private, private
		return nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		parse(private, func(pem []byte) error {
			key, err := jwt.ParseRSAPrivateKeyFromPEM(pem)
			if err == nil {
				t.sign, own = key, &key.PublicKey
			}
			return err
		})
		parse(public, func(pem []byte) (err error) {
			given, err = jwt.ParseRSAPublicKeyFromPEM(pem)
			return err
		})
	case *jwt.SigningMethodECDSA:
		parse(private, func(pem []byte) error {
			key, err := jwt.ParseECPrivateKeyFromPEM(pem)
			if err == nil {
				t.sign, own = key, &key.PublicKey
			}
			return err
		})
		parse(public, func(pem []byte) (err error) {
			given, err = jwt.ParseECPublicKeyFromPEM(pem)
			return err
		})
	case *jwt.SigningMethodEd25519:
		parse(private, func(pem []byte) error {
			key, err := jwt.ParseEdPrivateKeyFromPEM(pem)
			if err == nil {
				t.sign, own = key, key.(ed25519.PrivateKey).Public().(ed25519.PublicKey)
			}
			return err
		})
		parse(public, func(pem []byte) error {
			key, err := jwt.ParseEdPublicKeyFromPEM(pem)
			if err == nil {
				given = key.(ed25519.PublicKey)
			}
			return err
		})
	default:
		return errors.New("not a method that tokens can be signed with")
	}
	switch {
	case err != nil:
		return err
	case own == nil && given == nil:
		return errors.New("priv-key: missing")
	case own == nil:
		t.verify = given
	case given != nil && !given.Equal(own):
		return errors.New("pub-key does not belong to priv-key")
	default:
		t.verify = own
	}
	return nil
}

var (
	_ publicKey = (*rsa.PublicKey)(nil)
	_ publicKey = (*ecdsa.PublicKey)(nil)
)

// issue implements tokens.
func (t *jwtTokens) issue(user string, revision uint64) (string, error) {
	if t.sign == nil {
		return "", ErrVerifyOnly
	}
	token := jwt.NewWithClaims(t.method, jwt.MapClaims{
		"username": user, "revision": revision, "exp": time.Now().Add(t.ttl).Unix(),
	})
	signed, err := token.SignedString(t.sign)
	if err != nil {
		return "", fmt.Errorf("auth: signing a token for %q: %w", user, err)
	}
	return signed, nil
}

// resolve implements tokens. The identity is as old as the token.
func (t *jwtTokens) resolve(token string, _ uint64) (Identity, bool) {
	var c claims
	_, err := t.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return t.verify, nil })
	if err != nil || c.Username == nil || c.Revision == nil || *c.Revision < 0 {
		return Identity{}, false
	}
	return Identity{User: *c.Username, Revision: uint64(*c.Revision)}, true
}

// forget implements tokens. A JWT cannot be called back; its revision is old now.
func (t *jwtTokens) forget(string) {}

// clear implements tokens.
func (t *jwtTokens) clear() {}
