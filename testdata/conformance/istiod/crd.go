package istiod

import (
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/gvr"
	kubelib "istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/kclient/clienttest"
	"istio.io/istio/pkg/test"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

const (
	bundleVersionAnnotation = "gateway.networking.k8s.io/bundle-version"
	// bundleVersion is the Gateway API release that this istiod was built for.
	bundleVersion = "v1.6.0"
)

// InstallCRDs makes istiod believe that the definitions of Istio and of the
// Gateway API are installed. istiod ignores a Gateway API definition that does
// not say which release it is from, and Istio's test server writes such ones
// itself, so the annotation is put on whatever is written.
func InstallCRDs(t test.Failer, client kubelib.Client) {
	metadata := client.Metadata().(*metadatafake.FakeMetadataClient)
	metadata.PrependReactor("*", "customresourcedefinitions", func(action clienttesting.Action) (bool, runtime.Object, error) {
		write, ok := action.(interface{ GetObject() runtime.Object })
		if !ok {
			return false, nil, nil
		}
		definition := write.GetObject().(*metav1.PartialObjectMetadata)
		metav1.SetMetaDataAnnotation(&definition.ObjectMeta, bundleVersionAnnotation, bundleVersion)
		if action.GetVerb() == "update" {
			return true, definition, metadata.Tracker().Update(action.GetResource(), definition, "")
		}
		return true, definition, metadata.Tracker().Create(action.GetResource(), definition, "")
	})
	for _, s := range collections.PilotGatewayAPI().All() {
		clienttest.MakeCRD(t, client, s.GroupVersionResource())
	}
	for _, alpha := range []schema.GroupVersionResource{gvr.InferencePool, gvr.XBackendTrafficPolicy} {
		clienttest.MakeCRD(t, client, alpha)
	}
}
