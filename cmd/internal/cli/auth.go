package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"meshbridge/gateway/auth"
)

// authOptions say who may use the etcd port. Names and defaults are etcd's where etcd has the flag.
type authOptions struct {
	token            string
	tokenTTL         uint
	bcryptCost       int
	rootPasswordFile string
}

func (o *authOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.token, "auth-token", "simple",
		"`type` of tokens: simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION")
	f.UintVar(&o.tokenTTL, "auth-token-ttl", 300, "`seconds` that a simple token lives after its last use")
	f.IntVar(&o.bcryptCost, "bcrypt-cost", 10, "`cost` of hashing a password, 4 to 31")
	f.StringVar(&o.rootPasswordFile, "root-password-file", "",
		"`file` with the password of the user root; with it, clients have to authenticate from the start")
}

// authority makes what the options describe. Without a password for root it has no users; whether a client
// may then add them and turn authentication on, as in etcd, is openToClients.
func (o *authOptions) authority(ctx context.Context, openToClients bool, log *slog.Logger) (*auth.Authority, error) {
	a, err := auth.New(auth.Config{
		Token: o.token, SimpleTokenTTL: time.Duration(o.tokenTTL) * time.Second, BcryptCost: o.bcryptCost,
		Fixed: !openToClients && o.rootPasswordFile == "", Logger: log,
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("--auth-token, --auth-token-ttl, --bcrypt-cost: %w", err)}
	}
	if o.rootPasswordFile == "" {
		return a, nil
	}
	password, err := o.rootPassword()
	if err == nil {
		err = a.EnableWithRoot(ctx, password)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("--root-password-file: %w", err)}
	}
	return a, nil
}

// rootPassword reads the file. A line end after the password is no part of it.
func (o *authOptions) rootPassword() (string, error) {
	content, err := os.ReadFile(o.rootPasswordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if password == "" {
		return "", errors.New(o.rootPasswordFile + ": no password in it")
	}
	return password, nil
}
