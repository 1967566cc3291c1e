package precheck

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"time"
)

// Limits beyond which something is wrong, or will soon be.
const (
	expiresSoon = 10 * time.Minute
	clockSkew   = time.Minute
)

// audience is what istiod's tokens are for, unless it was told otherwise.
const audience = "istio-ca"

// claims are those of a Kubernetes token that istiod looks at.
type claims struct {
	Audience audiences `json:"aud"`
	Subject  string    `json:"sub"`
	Issued   int64     `json:"iat"`
	Expires  int64     `json:"exp"`
}

// audiences are a list, or one alone.
type audiences []string

func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// Token looks at the file with the token that istiod authenticates the workload by. Its signature is
// istiod's business.
func Token(file string) Check {
	return func(context.Context) []Result {
		const check = "token"
		data, err := os.ReadFile(file)
		if err != nil {
			return []Result{bad(Fail, check, "mount a service account token with audience "+audience+" (volume istio-token), or name its file with --xds-token-file", "%v", err)}
		}
		parts := strings.Split(strings.TrimSpace(string(data)), ".")
		var c claims
		if len(parts) != 3 {
			return []Result{bad(Warn, check, "istiod expects a token of Kubernetes", "%s holds no JWT", file)}
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil {
			err = json.Unmarshal(payload, &c)
		}
		if err != nil {
			return []Result{bad(Fail, check, "replace it", "%s: the claims cannot be read: %v", file, err)}
		}
		now := time.Now()
		var results []Result
		switch expires := time.Unix(c.Expires, 0); {
		case c.Expires == 0:
			results = append(results, bad(Warn, check, "use a token that expires", "%s, of %s, does not expire", file, c.Subject))
		case !now.Before(expires):
			results = append(results, bad(Fail, check, "the kubelet renews what it mounts; on a machine, copy a new one: kubectl create token --audience "+audience,
				"%s, of %s, has expired %s ago", file, c.Subject, ago(now.Sub(expires))))
		case expires.Sub(now) < expiresSoon:
			results = append(results, bad(Warn, check, "see that it is renewed", "%s, of %s, expires in %s", file, c.Subject, ago(expires.Sub(now))))
		default:
			results = append(results, ok(check, "%s, of %s, expires in %s", file, c.Subject, ago(expires.Sub(now))))
		}
		if !slices.Contains(c.Audience, audience) {
			results = append(results, bad(Warn, "token audience", "istiod refuses it unless its TOKEN_AUDIENCES names one of them; the usual audience is "+audience, "it is for %q", strings.Join(c.Audience, ", ")))
		}
		if issued := time.Unix(c.Issued, 0); c.Issued != 0 && issued.Sub(now) > clockSkew {
			results = append(results, bad(Fail, "clock", "set it: certificates and tokens are judged by it", "the token was issued %s from now", ago(issued.Sub(now))))
		}
		return results
	}
}

// Root looks at the file with the certificates that istiod's is verified with.
func Root(file string) Check {
	return func(context.Context) []Result {
		const check = "root certificate"
		data, err := os.ReadFile(file)
		if err != nil {
			return []Result{bad(Fail, check, "mount the ConfigMap istio-ca-root-cert, or name its file with --xds-root-cert", "%v", err)}
		}
		now, valid := time.Now(), 0
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			certificate, err := x509.ParseCertificate(block.Bytes)
			switch {
			case err != nil:
				return []Result{bad(Fail, check, "replace it", "%s: %v", file, err)}
			case now.Add(clockSkew).Before(certificate.NotBefore):
				return []Result{bad(Fail, "clock", "set it", "%s is valid only %s from now", file, ago(certificate.NotBefore.Sub(now)))}
			case now.Before(certificate.NotAfter):
				valid++
			}
		}
		if valid == 0 {
			return []Result{bad(Fail, check, "replace it", "%s holds no certificate that is valid", file)}
		}
		return []Result{ok(check, "%s: %d valid", file, valid)}
	}
}
