package console

import (
	"slices"

	"meshbridge/translate/apisix"
)

// redactedScalar is what is shown in place of a secret.
const redactedScalar = `"[redacted]"`

// redactObject replaces the secrets in an object: the private keys of ssls and of clients of upstreams, and
// what plugins call a secret. A field "key" is one in ssls alone: elsewhere it names what is hashed.
func redactObject(kind apisix.Kind, n *node) {
	secret := []string{"client_key", "private_key", "secret", "client_secret", "secret_key", "password"}
	if kind == apisix.KindSSL {
		secret = append(secret, "key", "keys")
	}
	redactFields(secret, n)
}

func redactFields(secret []string, n *node) {
	for i, value := range n.values {
		if n.object && slices.Contains(secret, n.keys[i]) {
			redactValue(value)
		} else {
			redactFields(secret, value)
		}
	}
}

func redactValue(n *node) {
	for _, value := range n.values {
		redactValue(value)
	}
	if !n.list && !n.object && n.text() != "" {
		n.scalar = redactedScalar
	}
}
