package auth

import (
	"fmt"
	"strings"
	"time"
)

// defaultTokenTTL is etcd's, for simple tokens and JWT.
const defaultTokenTTL = 5 * time.Minute

// tokens makes tokens and tells whose they are. The methods may be called concurrently.
type tokens interface {
	issue(user string, revision uint64) (string, error)
	// resolve returns who a token stands for, or false. Revision is the present one.
	resolve(token string, revision uint64) (Identity, bool)
	// forget deletes the tokens of a user, where that is possible.
	forget(user string)
	clear()
}

// newTokens takes the value of etcd's --auth-token.
func newTokens(spec string, simpleTTL time.Duration) (tokens, error) {
	kind, rest, _ := strings.Cut(spec, ",")
	options := map[string]string{}
	for option := range strings.SplitSeq(rest, ",") {
		if rest == "" {
			break
		}
		name, value, ok := strings.Cut(option, "=")
		if _, again := options[name]; !ok || again {
			return nil, fmt.Errorf("auth: token options %q: want each option once, as name=value, not %q", spec, option)
		}
		options[name] = value
	}
	switch kind {
	case "", "simple":
		if len(options) > 0 {
			return nil, fmt.Errorf("auth: token options %q: simple tokens have none", spec)
		}
		return newSimpleTokens(simpleTTL, maxSimpleTokens), nil
	case "jwt":
		return newJWT(options)
	}
	return nil, fmt.Errorf("auth: token type %q: want simple or jwt", kind)
}
