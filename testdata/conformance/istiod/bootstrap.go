package istiod

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"unsafe"

	"istio.io/istio/pilot/pkg/bootstrap"
	"istio.io/istio/pilot/pkg/serviceregistry/provider"
	kubelib "istio.io/istio/pkg/kube"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const systemNamespace = "istio-system"

// startBootstrap runs istiod's complete start-up over a fake API client.
func (s *Server) startBootstrap(c Config, docs []Document) error {
	f := &failer{log: c.Logger}
	client := kubelib.NewFakeClient()
	api := apiServer{client: client}
	answerReviews(client.Kube().(*kubefake.Clientset), c.account)
	if err := f.run(func() { InstallCRDs(f, client) }); err != nil {
		return fmt.Errorf("install definitions: %w", err)
	}
	for _, doc := range docs {
		if err := (change{"created", doc}).applyTo(api); err != nil {
			return err
		}
	}
	// The addresses are fixed first because bootstrap.Server does not tell
	// which port it got.
	grpc, httpAddress, secure := c.GRPC, c.HTTP, c.Secure
	if err := errors.Join(fixPort(&grpc), fixPort(&httpAddress), fixPort(&secure)); err != nil {
		return err
	}
	meshFile := c.Manifests.MeshFile
	if meshFile == "" {
		meshFile = filepath.Join(f.TempDir(), "absent") // defaults
	}
	args := bootstrap.NewPilotArgs(func(p *bootstrap.PilotArgs) {
		p.Namespace, p.PodName, p.Revision = systemNamespace, "istiod-0", "default"
		p.MeshConfigFile = meshFile
		p.RegistryOptions.KubeOptions.DomainSuffix = "cluster.local"
		p.RegistryOptions.KubeOptions.ClusterID = "Kubernetes"
		p.RegistryOptions.Registries = []string{string(provider.Kubernetes)}
		p.ServerOptions = bootstrap.DiscoveryServerOptions{HTTPAddr: httpAddress, GRPCAddr: grpc, SecureGRPCAddr: secure}
	})
	server, err := bootstrap.NewServer(args, func(b *bootstrap.Server) { setKubeClient(b, client) })
	if err != nil {
		f.cleanup()
		return fmt.Errorf("bootstrap istiod: %w", err)
	}
	stop := make(chan struct{})
	if err := server.Start(stop); err != nil {
		close(stop)
		f.cleanup()
		return fmt.Errorf("start istiod: %w", err)
	}
	s.GRPC, s.HTTP, s.Secure = grpc, httpAddress, secure
	s.RootCert = server.CA.GetCAKeyCertBundle().GetRootCertPem()
	s.store = api
	s.stop = func() {
		close(stop)
		server.WaitUntilCompletion()
		f.cleanup()
	}
	return nil
}

// setKubeClient puts the fake client where bootstrap would put the one it
// makes from a kubeconfig. The field is not exported; Istio's own bootstrap
// tests, being in its package, set it the same way.
func setKubeClient(server *bootstrap.Server, client kubelib.Client) {
	field := reflect.ValueOf(server).Elem().FieldByName("kubeClient")
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(client))
}

// answerReviews plays the part of the API server that authenticates tokens
// and grants access to secrets.
func answerReviews(clients *kubefake.Clientset, accountOf func(token string) (account string, known bool)) {
	clients.PrependReactor("create", "subjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, nil
	})
	clients.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		spec := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).Spec
		account, known := accountOf(spec.Token)
		if !known {
			return true, &authenticationv1.TokenReview{Status: authenticationv1.TokenReviewStatus{Error: "unknown token"}}, nil
		}
		namespace, name, _ := strings.Cut(account, "/")
		return true, &authenticationv1.TokenReview{Status: authenticationv1.TokenReviewStatus{
			Authenticated: true,
			Audiences:     spec.Audiences,
			User: authenticationv1.UserInfo{
				Username: "system:serviceaccount:" + namespace + ":" + name,
				Groups:   []string{"system:serviceaccounts"},
			},
		}}, nil
	})
}

// fixPort replaces port 0 by one that is free now.
func fixPort(address *string) error {
	if *address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	*address = listener.Addr().String()
	return listener.Close()
}
