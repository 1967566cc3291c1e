package istiod

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	istiofake "istio.io/client-go/pkg/clientset/versioned/fake"
	"istio.io/istio/pilot/pkg/model"
	kubelib "istio.io/istio/pkg/kube"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	gatewayfake "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/fake"
)

// objectStore is where a running istiod reads its configuration from.
type objectStore interface {
	create(Document) error
	update(Document) error
	remove(Document) error
}

// apiServer changes the objects behind the fake API clients, whose watches
// istiod's informers follow.
type apiServer struct {
	client kubelib.Client
}

func (a apiServer) create(d Document) error {
	return a.tracker(d.Key).Create(d.Key.Resource, d.Object, d.Key.Namespace)
}

func (a apiServer) update(d Document) error {
	return a.tracker(d.Key).Update(d.Key.Resource, d.Object, d.Key.Namespace)
}

func (a apiServer) remove(d Document) error {
	return a.tracker(d.Key).Delete(d.Key.Resource, d.Key.Namespace, d.Key.Name)
}

func (a apiServer) tracker(k Key) clienttesting.ObjectTracker {
	switch group := k.Resource.Group; {
	case strings.HasSuffix(group, "istio.io"):
		return a.client.Istio().(*istiofake.Clientset).Tracker()
	case strings.HasPrefix(group, "gateway.networking."):
		return a.client.GatewayAPI().(*gatewayfake.Clientset).Tracker()
	default:
		return a.client.Kube().(*kubefake.Clientset).Tracker()
	}
}

// configStore sends Istio's own kinds to the discovery server's in-memory
// configuration store and everything else to the API server.
type configStore struct {
	apiServer

	store model.ConfigStoreController
}

func (c configStore) create(d Document) error {
	if d.Config == nil {
		return c.apiServer.create(d)
	}
	_, err := c.store.Create(*d.Config)
	return err
}

func (c configStore) update(d Document) error {
	if d.Config == nil {
		return c.apiServer.update(d)
	}
	_, err := c.store.Update(*d.Config)
	return err
}

func (c configStore) remove(d Document) error {
	if d.Config == nil {
		return c.apiServer.remove(d)
	}
	return c.store.Delete(d.Config.GroupVersionKind, d.Config.Name, d.Config.Namespace, nil)
}

// change is one difference between two states of the manifest directory.
type change struct {
	verb string // "created", "updated" or "removed"
	doc  Document
}

func (c change) String() string { return fmt.Sprintf("%s %s", c.verb, c.doc.Key) }

// diff lists what leads from the documents known so far to the wanted ones:
// creations and updates in file order, then removals.
func diff(have map[Key]Document, want []Document) []change {
	var changes []change
	wanted := make(map[Key]bool, len(want))
	for _, doc := range want {
		wanted[doc.Key] = true
		switch old, known := have[doc.Key]; {
		case !known:
			changes = append(changes, change{"created", doc})
		case !bytes.Equal(old.JSON, doc.JSON):
			changes = append(changes, change{"updated", doc})
		}
	}
	keys := slices.SortedFunc(maps.Keys(have), func(a, b Key) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		if !wanted[key] {
			changes = append(changes, change{"removed", have[key]})
		}
	}
	return changes
}

func (c change) applyTo(s objectStore) error {
	var err error
	switch c.verb {
	case "created":
		err = s.create(c.doc)
	case "updated":
		err = s.update(c.doc)
	case "removed":
		err = s.remove(c.doc)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.doc.Source, c, err)
	}
	return nil
}
