package istiod

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// ParseTokens adds the tokens of a list "token=namespace/serviceaccount,..." to a map.
func ParseTokens(list string, into map[string]string) error {
	for pair := range strings.SplitSeq(list, ",") {
		token, account, ok := strings.Cut(pair, "=")
		if namespace, name, both := strings.Cut(account, "/"); !ok || !both || token == "" || namespace == "" || name == "" {
			return fmt.Errorf("%q is not token=namespace/serviceaccount", pair)
		}
		into[token] = account
	}
	return nil
}

// account returns the service account, as namespace/name, that a token stands for now.
func (c *Config) account(token string) (account string, known bool) {
	if account, known = c.Tokens[token]; known || c.TokenFile == "" {
		return account, known
	}
	tokens := map[string]string{}
	text, err := os.ReadFile(c.TokenFile)
	if err == nil {
		err = ParseTokens(strings.TrimSpace(string(text)), tokens)
	}
	if err != nil {
		c.Logger.Error("tokens", slog.Any("error", err))
	}
	account, known = tokens[token]
	return account, known
}
