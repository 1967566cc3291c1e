package istiod

import (
	"fmt"
	"net"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	kubelib "istio.io/istio/pkg/kube"
	"k8s.io/apimachinery/pkg/runtime"
)

// startDiscovery runs pilot's own test server, which is the real discovery
// server and the real controllers, on a TCP port.
func (s *Server) startDiscovery(c Config, m *meshconfig.MeshConfig, docs []Document) error {
	var configs []config.Config
	var objects []runtime.Object
	for _, doc := range docs {
		if doc.Config != nil {
			configs = append(configs, *doc.Config)
		} else {
			objects = append(objects, doc.Object)
		}
	}
	f := &failer{log: c.Logger}
	var ds *xds.FakeDiscoveryServer
	err := f.run(func() {
		ds = xds.NewFakeDiscoveryServer(f, xds.FakeOptions{
			KubernetesObjects:          objects,
			Configs:                    configs,
			MeshConfig:                 m,
			DebounceTime:               c.Debounce,
			DisableSecretAuthorization: true,
			KubeClientModifier:         func(client kubelib.Client) { InstallCRDs(f, client) },
			ListenerBuilder:            func() (net.Listener, error) { return net.Listen("tcp", c.GRPC) },
		})
	})
	if err != nil {
		f.cleanup()
		return fmt.Errorf("start istiod: %w", err)
	}
	debug, address, err := serveDebug(c.HTTP, ds.DiscoveryDebug)
	if err != nil {
		f.cleanup()
		return err
	}
	s.GRPC, s.HTTP = ds.Listener.Addr().String(), address
	s.store = configStore{apiServer: apiServer{client: ds.KubeClient()}, store: ds.Store()}
	s.stop = func() {
		_ = debug.Close()
		f.cleanup()
	}
	return nil
}
