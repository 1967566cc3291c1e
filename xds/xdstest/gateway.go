package xdstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strconv"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Gateway returns the listener of a gateway's HTTPS port, with a filter chain for each host whose
// certificate is in the secret kubernetes://HOST, and its route configuration, named like the port,
// in which every host answers 204.
func Gateway(port int, hosts ...string) []proto.Message {
	listener := Listener(port)
	listener.BindToPort = nil
	plain := listener.GetFilterChains()[0]
	listener.FilterChains = nil
	routes := &routepb.RouteConfiguration{Name: strconv.Itoa(port), IgnorePortInHostMatching: true}
	for _, host := range hosts {
		chain := proto.CloneOf(plain)
		chain.FilterChainMatch = &listenerpb.FilterChainMatch{ServerNames: []string{host}}
		chain.TransportSocket = &corepb.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{
			TypedConfig: Any(&tlspb.DownstreamTlsContext{
				RequireClientCertificate: wrapperspb.Bool(false),
				CommonTlsContext: &tlspb.CommonTlsContext{
					AlpnProtocols:                  []string{"h2", "http/1.1"},
					TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{overADS("kubernetes://" + host)},
				},
			}),
		}}
		listener.FilterChains = append(listener.FilterChains, chain)
		routes.VirtualHosts = append(routes.VirtualHosts, &routepb.VirtualHost{
			Name: host, Domains: []string{host},
			Routes: []*routepb.Route{{
				Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 204}},
			}},
		})
	}
	return []proto.Message{listener, routes}
}

func overADS(name string) *tlspb.SdsSecretConfig {
	return &tlspb.SdsSecretConfig{Name: name, SdsConfig: &corepb.ConfigSource{
		ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
		ResourceApiVersion:    corepb.ApiVersion_V3,
	}}
}

// Credential returns a secret with a certificate for its name without kubernetes://, and a key that
// is new each time.
func Credential(host string) *tlspb.Secret {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // only where there is no randomness
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2046, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return &tlspb.Secret{Name: "kubernetes://" + host, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: inlinePEM("CERTIFICATE", certificate), PrivateKey: inlinePEM("PRIVATE KEY", private),
	}}}
}

func inlinePEM(kind string, der []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})}}
}
