package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
)

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// secret is what a stream received: a certificate chain with its key, or authorities, or what is wrong
// with them.
type secret struct {
	name  string
	chain []*x509.Certificate
	key   crypto.PrivateKey // nil for authorities
	err   error
}

// subscribe asks for a secret, and sends every version of it to received, until the stream ends; it
// returns why. Bad ones are NACKed: the agent may have better ones later.
func subscribe(ctx context.Context, conn *grpc.ClientConn, node *corepb.Node, name string, received chan<- secret) error {
	stream, err := secretpb.NewSecretDiscoveryServiceClient(conn).StreamSecrets(ctx)
	if err != nil {
		return err
	}
	request := &discoverypb.DiscoveryRequest{Node: node, TypeUrl: secretType, ResourceNames: []string{name}}
	for {
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return err // with io.EOF, Recv tells the reason
		}
		response, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the agent ended the stream")
		case err != nil:
			return err
		}
		got, err := readSecret(name, response.GetResources())
		request = &discoverypb.DiscoveryRequest{
			TypeUrl: secretType, ResourceNames: []string{name},
			ResponseNonce: response.GetNonce(), VersionInfo: request.GetVersionInfo(),
		}
		if err != nil {
			request.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
			got = secret{name: name, err: err}
		} else {
			request.VersionInfo = response.GetVersionInfo()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case received <- got:
		}
	}
}

// readSecret reads the secret of that name. Its errors are sent to the agent and logged, and hold
// nothing of the key.
func readSecret(name string, resources []*anypb.Any) (secret, error) {
	for _, resource := range resources {
		message := &tlspb.Secret{}
		if err := resource.UnmarshalTo(message); err != nil {
			return secret{}, errors.New("a resource is no secret")
		}
		if message.GetName() != name {
			continue
		}
		if name == authoritiesSecret {
			return readAuthorities(message)
		}
		return readCertificate(message)
	}
	return secret{}, errors.New("the response does not hold it")
}

func readAuthorities(message *tlspb.Secret) (secret, error) {
	ca := message.GetValidationContext().GetTrustedCa()
	text, err := inline(ca)
	if err != nil {
		return secret{}, fmt.Errorf("trusted_ca: %w", err)
	}
	list, err := parseCertificates(text)
	if err != nil {
		return secret{}, fmt.Errorf("trusted_ca: %w", err)
	}
	return secret{name: message.GetName(), chain: list}, nil
}

func readCertificate(message *tlspb.Secret) (secret, error) {
	certificate := message.GetTlsCertificate()
	if certificate.GetPrivateKeyProvider() != nil {
		return secret{}, errors.New("tls_certificate: private_key_provider is for Envoy alone")
	}
	text, err := inline(certificate.GetCertificateChain())
	if err != nil {
		return secret{}, fmt.Errorf("certificate_chain: %w", err)
	}
	chain, err := parseCertificates(text)
	if err != nil {
		return secret{}, fmt.Errorf("certificate_chain: %w", err)
	}
	if text, err = inline(certificate.GetPrivateKey()); err != nil {
		return secret{}, fmt.Errorf("private_key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return secret{}, fmt.Errorf("private_key: %w", err)
	}
	// Whether it can be used does not depend on the authorities: any will do for a check.
	if _, err := assemble(chain, key, chain, time.Now()); err != nil {
		return secret{}, err
	}
	return secret{name: message.GetName(), chain: chain, key: key}, nil
}

func inline(source *corepb.DataSource) ([]byte, error) {
	switch s := source.GetSpecifier().(type) {
	case *corepb.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corepb.DataSource_InlineString:
		return []byte(s.InlineString), nil
	default:
		return nil, errors.New("is not in the response itself")
	}
}
