package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"meshbridge/identity"
	"meshbridge/identity/identitytest"
)

func TestIstiodIssuesTheWorkloadsCertificate(t *testing.T) {
	a := newAuthority(t)
	a.ca = a.ca.Intermediate(t, "istiod") // a plugged-in authority
	log, registry := newLogbook(), prometheus.NewRegistry()
	config := a.config(log)
	config.Registerer = registry
	source := newSource(t, config)
	if source.Current() != nil {
		t.Error("there is an identity before Run")
	}
	run(t, source)
	current := await(t, source, "certificate", anyIdentity)

	if current.ID != workload {
		t.Errorf("ID %q", current.ID)
	}
	if key, ok := current.Certificate.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve.Params().BitSize != 256 {
		t.Errorf("key %T", current.Certificate.PrivateKey)
	}
	if n := len(current.Certificate.Certificate); n != 2 {
		t.Errorf("%d certificates are presented, want the leaf and the intermediate", n)
	}
	if count(current.AuthoritiesPEM) != 1 {
		t.Errorf("authorities:\n%s", current.AuthoritiesPEM)
	}
	intermediates := x509.NewCertPool()
	intermediates.AddCert(a.ca.Certificate)
	if _, err := current.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: current.Authorities, Intermediates: intermediates}); err != nil {
		t.Errorf("a peer would refuse it: %v", err)
	}
	request, header := a.asked()
	if request.GetValidityDuration() != 86400 {
		t.Errorf("asked for %d seconds, want a day", request.GetValidityDuration())
	}
	if got := header.Get("clusterid"); len(got) != 1 || got[0] != "Kubernetes" {
		t.Errorf("cluster %q", got)
	}
	if got := value(t, registry, "meshbridge_identity_expiry_timestamp_seconds"); got != float64(current.NotAfter.Unix()) {
		t.Errorf("the metric says that it expires at %v, the certificate %s", got, current.NotAfter)
	}
	if got := value(t, registry, "meshbridge_identity_renewals_total"); got != 1 {
		t.Errorf("%v renewals", got)
	}
	checkSecrets(t, log, current, goodToken)
}

func TestIstiodWithRSAKeys(t *testing.T) {
	a := newAuthority(t)
	config := a.config(newLogbook())
	config.RSA = true
	source := newSource(t, config)
	run(t, source)
	current := await(t, source, "certificate", anyIdentity)
	if key, ok := current.Certificate.PrivateKey.(*rsa.PrivateKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("key %T", current.Certificate.PrivateKey)
	}
}

// What is wrong is told with every attempt, and putting it right is enough.
func TestWhatIsWrongIsNamedAndCanBePutRight(t *testing.T) {
	for _, test := range []struct {
		name    string
		damage  func(t *testing.T, c identity.IstiodConfig)
		reason  string
		message string
	}{
		{"wrong token", func(t *testing.T, c identity.IstiodConfig) {
			t.Helper()
			write(t, c.TokenFile, []byte("expired-canary"))
		}, "refused", "Unauthenticated"},
		{"empty token", func(t *testing.T, c identity.IstiodConfig) { t.Helper(); write(t, c.TokenFile, nil) }, "file", "istio-token is empty"},
		{"binary token", func(t *testing.T, c identity.IstiodConfig) { t.Helper(); write(t, c.TokenFile, []byte("a\nb")) }, "file", "istio-token holds more than a token"},
		{"no token", func(_ *testing.T, c identity.IstiodConfig) { os.Remove(c.TokenFile) }, "file", "istio-token: no such file"},
		{"wrong root", func(t *testing.T, c identity.IstiodConfig) {
			t.Helper()
			write(t, c.RootFile, identitytest.NewCA(t, "other").RootPEM())
		}, "unreachable", "certificate signed by unknown authority"},
		{"no root", func(_ *testing.T, c identity.IstiodConfig) { os.Remove(c.RootFile) }, "file", "root-cert.pem: no such file"},
		{"no PEM", func(t *testing.T, c identity.IstiodConfig) { t.Helper(); write(t, c.RootFile, []byte("?")) }, "file", "root-cert.pem holds no PEM certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAuthority(t)
			log, registry := newLogbook(), prometheus.NewRegistry()
			config := a.config(log)
			config.Registerer = registry
			test.damage(t, config)
			source := newSource(t, config)
			run(t, source)

			log.await(t, test.message, 2)

			if !strings.Contains(log.String(), "source="+a.address) || !strings.Contains(log.String(), "reason="+test.reason) {
				t.Errorf("the log does not say where or why:\n%s", log)
			}
			if strings.Contains(log.String(), "canary") {
				t.Errorf("the log shows the token:\n%s", log)
			}
			if source.Current() != nil {
				t.Error("there is an identity")
			}
			if value(t, registry, "meshbridge_identity_failures_total") < 2 {
				t.Error("failures are not counted")
			}
			write(t, config.TokenFile, []byte(goodToken))
			write(t, config.RootFile, a.ca.RootPEM())
			await(t, source, "certificate", anyIdentity)
		})
	}
}

func TestTheServersNameIsVerified(t *testing.T) {
	a := newAuthority(t)
	log := newLogbook()
	config := a.config(log)
	config.ServerName = "other.example"
	run(t, newSource(t, config))
	log.await(t, "not other.example", 1)
}

func TestTheAuthorityIsDownAndComesBack(t *testing.T) {
	a := newAuthority(t)
	a.stop()
	log := newLogbook()
	source := newSource(t, a.config(log))
	run(t, source)
	log.await(t, "connection refused", 2)
	a.start()
	await(t, source, "certificate", anyIdentity)
}

// An answer that does not fit what was asked never becomes current.
func TestWrongAnswersAreRefused(t *testing.T) {
	ca := identitytest.NewCA(t, "root")
	sign := func(leaf identitytest.Leaf) func([]byte) ([]string, error) {
		return func(csr []byte) ([]string, error) { return answer(t, ca, csr, leaf) }
	}
	for _, test := range []struct {
		name   string
		answer func(csr []byte) ([]string, error)
		want   string
	}{
		{"empty", func([]byte) ([]string, error) { return nil, nil }, "has no root"},
		{"no root", func(csr []byte) ([]string, error) {
			c, err := answer(t, ca, csr, identitytest.Leaf{})
			return c[:1], err
		}, "has no root"},
		{"garbage", func([]byte) ([]string, error) { return []string{"?", "?"}, nil }, "holds no certificate in PEM"},
		{"cut off", func(csr []byte) ([]string, error) {
			c, err := answer(t, ca, csr, identitytest.Leaf{})
			c[0] = c[0][:300]
			return c, err
		}, "damaged or cut off"},
		{"another's key", func([]byte) ([]string, error) {
			chain, _ := identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))
			return []string{string(chain), string(ca.RootPEM())}, nil
		}, "the key is not that of the certificate"},
		{"another's ID", sign(identitytest.Leaf{URIs: []string{"spiffe://cluster.local/ns/default/sa/admin"}}), "sa/admin"},
		{"two IDs", sign(identitytest.Leaf{URIs: []string{workload, workload + "2"}}), "2 URI names"},
		{"no SPIFFE ID", sign(identitytest.Leaf{URIs: []string{"https://cluster.local/ns/default/sa/reviews"}}), "is no SPIFFE ID"},
		{"expired", sign(identitytest.Leaf{NotAfter: time.Now().Add(-time.Second)}), "the certificate expired"},
		{"not yet valid", sign(identitytest.Leaf{NotBefore: time.Now().Add(time.Minute)}), "are the clocks right?"},
		{"of another root", func(csr []byte) ([]string, error) {
			c, err := answer(t, ca, csr, identitytest.Leaf{})
			c[len(c)-1] = string(identitytest.NewCA(t, "other").RootPEM())
			return c, err
		}, "does not come from its root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := newLogbook()
			source := newSource(t, identity.IstiodConfig{
				Address: "istiod:15012", Namespace: "default", ServiceAccount: "reviews", Logger: log.logger(),
				RootFile: tempFile(t, "root-cert.pem", ca.RootPEM()), Backoff: identity.Backoff{Base: time.Millisecond},
			})
			identity.SetRequest(source, func(_ context.Context, csr []byte) ([]string, error) { return test.answer(csr) })
			run(t, source)
			log.await(t, test.want, 1)
			if source.Current() != nil {
				t.Error("it became current")
			}
			if !strings.Contains(log.String(), "reason=invalid") {
				t.Errorf("reason:\n%s", log)
			}
		})
	}
}

// clockedCA is a source under a fake clock, with an authority that can be broken.
type clockedCA struct {
	source identity.Source
	root   string
	log    *logbook

	mu      sync.Mutex
	ca      *identitytest.CA // guarded by mu
	broken  bool             // guarded by mu
	refused []time.Time      // guarded by mu
}

// refusals returns when requests failed.
func (c *clockedCA) refusals() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refused)
}

func (c *clockedCA) change(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func newClockedCA(t *testing.T) *clockedCA {
	t.Helper()
	c := &clockedCA{ca: identitytest.NewCA(t, "root"), log: newLogbook()}
	c.root = tempFile(t, "root-cert.pem", c.ca.RootPEM())
	c.source = newSource(t, identity.IstiodConfig{
		Address: "istiod:15012", Namespace: "default", ServiceAccount: "reviews", RootFile: c.root, Logger: c.log.logger(),
	})
	identity.SetRequest(c.source, func(_ context.Context, csr []byte) ([]string, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.broken {
			c.refused = append(c.refused, time.Now())
			return nil, errors.New("broken")
		}
		return answer(t, c.ca, csr, identitytest.Leaf{NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(10 * time.Hour)})
	})
	return c
}

// wait lets time pass. Blocking calls of the operating system do not count as time.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func TestTheCertificateIsRenewedAtHalfOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockedCA(t)
		stop := run(t, c.source)
		synctest.Wait()
		first := c.source.Current()
		changed := c.source.Changed()

		wait(5*time.Hour - 8*time.Minute)
		if c.source.Current() != first {
			t.Fatal("renewed early")
		}
		wait(16 * time.Minute)
		second := c.source.Current()
		if second == first {
			t.Fatal("not renewed after half of its life")
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if second.Certificate.PrivateKey.(*ecdsa.PrivateKey).Equal(first.Certificate.PrivateKey) {
			t.Error("renewed with the old key")
		}
		stop()
	})
}

func TestTheLastIdentityStaysWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockedCA(t)
		stop := run(t, c.source)
		synctest.Wait()
		first := c.source.Current()
		c.change(func() { c.broken = true })
		wait(9 * time.Hour)
		if c.source.Current() != first {
			t.Error("the identity was given up")
		}
		// From half of its life on, at first often and then about every 45 s.
		refused := c.refusals()
		if n := len(refused); n < 200 || n > 500 {
			t.Errorf("%d attempts in four hours", n)
		}
		if gap := refused[1].Sub(refused[0]); gap > time.Second {
			t.Errorf("second attempt after %s", gap)
		}
		for i, at := range refused[1:] {
			if gap := at.Sub(refused[i]); gap > time.Minute+time.Second {
				t.Errorf("%s between attempts", gap)
			}
		}
		if !strings.Contains(c.log.String(), "keeping the last") || strings.Contains(c.log.String(), "level=ERROR") {
			t.Error("it is not told as what it is")
		}
		wait(2 * time.Hour)
		if c.source.Current() != first {
			t.Error("the identity was given up when it expired")
		}
		if !strings.Contains(c.log.String(), "level=ERROR msg=\"no valid workload identity\"") {
			t.Error("an identity that expired is not told as an error")
		}
		c.change(func() { c.broken = false })
		wait(time.Minute + time.Second)
		if c.source.Current() == first {
			t.Error("not renewed although it is possible again")
		}
		stop()
	})
}

// While the root is being replaced, certificates of the old and the new one are good.
func TestAChangedRootFileLeadsToARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockedCA(t)
		stop := run(t, c.source)
		synctest.Wait()
		first := c.source.Current()
		old := c.ca.RootPEM()
		c.change(func() { c.ca = identitytest.NewCA(t, "new root") })
		write(t, c.root, append(old, c.ca.RootPEM()...))

		wait(time.Minute + time.Second)

		second := c.source.Current()
		if second == first {
			t.Fatal("not renewed")
		}
		if count(second.AuthoritiesPEM) != 2 {
			t.Errorf("authorities:\n%s", second.AuthoritiesPEM)
		}
		wait(time.Hour)
		if c.source.Current() != second {
			t.Error("renewed again")
		}
		stop()
	})
}

// The file may be about istiod's server certificate alone (PILOT_CERT_PROVIDER): what is in it then
// must not identify workloads.
func TestAnotherAuthorityInTheRootFileIsNotThatOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClockedCA(t)
		write(t, c.root, identitytest.NewCA(t, "the cluster's").RootPEM())
		stop := run(t, c.source)
		synctest.Wait()
		if got := c.source.Current().AuthoritiesPEM; string(got) != string(c.ca.RootPEM()) {
			t.Errorf("authorities:\n%s", got)
		}
		stop()
	})
}

func TestRenewalsAreSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(time.Second), int64(365*24*time.Hour)).Draw(t, "life"))
		now := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), 0)
		share := float64(identity.RenewalTime(now, now.Add(life)).Sub(now)) / float64(life)
		if share < 0.4899 || share > 0.5101 {
			t.Errorf("renewed after %v of its life", share)
		}
	})
}

func TestConfigurationOfIstiodIsChecked(t *testing.T) {
	good := identity.IstiodConfig{Address: "istiod:15012", Namespace: "default", ServiceAccount: "reviews"}
	for _, test := range []struct {
		name   string
		change func(*identity.IstiodConfig)
		want   string
	}{
		{"address", func(c *identity.IstiodConfig) { c.Address = "istiod" }, "missing port"},
		{"namespace", func(c *identity.IstiodConfig) { c.Namespace = "" }, "namespace is not set"},
		{"service account", func(c *identity.IstiodConfig) { c.ServiceAccount = "a/sa/b" }, `service account "a/sa/b" has a character`},
		{"trust domain", func(c *identity.IstiodConfig) { c.TrustDomain = "a:1" }, "trust domain"},
		{"life", func(c *identity.IstiodConfig) { c.TTL = time.Millisecond }, "too short"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := good
			test.change(&config)
			if _, err := identity.Istiod(config); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestTheClientCertificateIsTheCurrentOne(t *testing.T) {
	ca := identitytest.NewCA(t, "root")
	source := identitytest.NewSource(nil)
	get := identity.ClientCertificate(source)
	if _, err := get(&tls.CertificateRequestInfo{}); err == nil {
		t.Error("no error without an identity")
	}
	for range 2 {
		current := ca.Identity(t, workload)
		source.Set(current)
		if got, err := get(&tls.CertificateRequestInfo{}); err != nil || got != current.Certificate {
			t.Errorf("not the current certificate: %v", err)
		}
	}
}
