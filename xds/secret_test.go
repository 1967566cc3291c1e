package xds_test

import (
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func TestSecretsAreSubscribedToAsListenersNameThem(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Gateway(8443, "a.com", "b.com")...)
			srv.Set(xdstest.Credential("a.com"), xdstest.Credential("b.com"), xdstest.Credential("c.com"))
			srv.Set(xdstest.Mesh(1, 1).Resources()...)
			_, o := connect(t, srv, world)
			u := o.wait("first sync", everything)
			if got := strings.Join(names(u.Snapshot, xds.SecretType), " "); got != "kubernetes://a.com kubernetes://b.com" {
				t.Errorf("secrets %q", got)
			}

			srv.Set(xdstest.Gateway(8443, "b.com", "c.com")...)
			u = o.wait("the other secrets", func(u xds.Update) bool {
				return slices.Equal(names(u.Snapshot, xds.SecretType), []string{"kubernetes://b.com", "kubernetes://c.com"})
			})
			if u.Snapshot.Get(xds.Key{Type: xds.SecretType, Name: "kubernetes://a.com"}) != nil {
				t.Error("a private key is kept that nothing refers to")
			}
			srv.WaitRequest("end of the subscription", func(r xdstest.Request) bool {
				return r.TypeURL == xds.SecretType && (slices.Contains(r.Unsubscribe, "kubernetes://a.com") ||
					len(r.Names) > 0 && !slices.Contains(r.Names, "kubernetes://a.com"))
			})
		})
	}
}

// A DestinationRule of a gateway can name a credential for connections to the service.
func TestSecretsAreSubscribedToAsClustersNameThem(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Mesh(0, 0).Resources()...)
	srv.Set(xdstest.Credential("a.com"), xdstest.Credential("b.com"))
	originate := &tlspb.UpstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{{
			Name:      "kubernetes://a.com",
			SdsConfig: &corepb.ConfigSource{ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}},
		}},
	}}
	srv.Set(&clusterpb.Cluster{
		Name: "outbound|443||a.com", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC},
		TransportSocket: &corepb.TransportSocket{
			Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: xdstest.Any(originate)},
		},
	})
	_, o := connect(t, srv, false)
	u := o.wait("first sync", everything)
	if got := names(u.Snapshot, xds.SecretType); !slices.Equal(got, []string{"kubernetes://a.com"}) {
		t.Errorf("secrets %q", got)
	}
}

// Envoy keeps the certificate that it has when the secret is deleted, and so do its users expect.
func TestASecretThatIstiodLosesStays(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Gateway(8443, "a.com", "b.com")...)
	srv.Set(xdstest.Credential("a.com"), xdstest.Credential("b.com"))
	_, o := connect(t, srv, false)
	o.wait("first sync", everything)
	srv.Remove(xds.SecretType, "kubernetes://a.com")
	rotated := xdstest.Credential("b.com")
	srv.Set(rotated)
	u := o.wait("the other secret", func(u xds.Update) bool {
		r := u.Snapshot.Get(xds.Key{Type: xds.SecretType, Name: "kubernetes://b.com"})
		return proto.Equal(r.Body, xdstest.Any(rotated))
	})
	if u.Snapshot.Len(xds.SecretType) != 2 {
		t.Errorf("secrets %q", names(u.Snapshot, xds.SecretType))
	}
}

// Secrets that cannot be had are told in the delta variant, and are not waited for then.
func TestASecretThatDoesNotExistIsNotWaitedFor(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Gateway(8443, "a.com")...)
	_, o := connect(t, srv, false)
	o.wait("the subscription", func(u xds.Update) bool {
		return slices.Equal(u.Pending, []xds.Key{{Type: xds.SecretType, Name: "kubernetes://a.com"}})
	})
	srv.Send(xdstest.Response{TypeURL: xds.SecretType, Removed: []string{"kubernetes://a.com"}})
	if u := o.wait("answer", everything); u.Snapshot.Len(xds.SecretType) != 0 {
		t.Error("there is a secret")
	}
}

func TestASecretThatNoServerCouldUseIsRefused(t *testing.T) {
	const canary = "canary-of-the-private-key"
	text := func(s string) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: s}}
	}
	certificate := func(change func(*tlspb.TlsCertificate)) *tlspb.Secret {
		s := xdstest.Credential("b.com")
		change(s.GetTlsCertificate())
		return s
	}
	authorities := func(pem string) *tlspb.Secret {
		return &tlspb.Secret{Name: "kubernetes://b.com", Type: &tlspb.Secret_ValidationContext{
			ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: text(pem)},
		}}
	}
	for name, broken := range map[string]*tlspb.Secret{
		"another key": certificate(func(c *tlspb.TlsCertificate) {
			c.PrivateKey = xdstest.Credential("b.com").GetTlsCertificate().GetPrivateKey()
		}),
		"no key": certificate(func(c *tlspb.TlsCertificate) { c.PrivateKey = text(canary) }),
		"a broken key": certificate(func(c *tlspb.TlsCertificate) {
			c.PrivateKey = text("-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n")
		}),
		"no certificate":     certificate(func(c *tlspb.TlsCertificate) { c.CertificateChain = text(canary) }),
		"no authority":       authorities(canary),
		"a broken authority": authorities("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		for variant, world := range variants() {
			t.Run(name+"/"+variant, func(t *testing.T) {
				srv := xdstest.NewServer(t)
				srv.Set(xdstest.Gateway(8443, "a.com", "b.com")...)
				good := xdstest.Credential("a.com")
				srv.Set(good, broken)
				log := &records{}
				_, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Logger: newLogger(log)})
				u := o.wait("first sync", everything)
				if got := strings.Join(names(u.Snapshot, xds.SecretType), " "); got != "kubernetes://a.com" {
					t.Errorf("secrets %q, want the good one", got)
				}
				nack := srv.WaitRequest("NACK", isNACK(xds.SecretType))
				if !strings.Contains(nack.Error, "Secret kubernetes://b.com") {
					t.Errorf("error_detail names no secret: %s", nack.Error)
				}
				if len(u.Rejected) != 1 {
					t.Fatalf("rejected %v", u.Rejected)
				}
				for _, shown := range append(log.containing(""), nack.Error, u.Rejected[0].String()) {
					if strings.Contains(shown, canary) {
						t.Errorf("shows the private key: %s", shown)
					}
				}
			})
		}
	}
}
