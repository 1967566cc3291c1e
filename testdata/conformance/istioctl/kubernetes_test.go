package istioctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"sigs.k8s.io/yaml"
)

// kubernetes stands in for an API server: it serves the objects of a directory of manifests, forwards ports
// of pods, and gives everybody the same token.
type kubernetes struct {
	t       *testing.T
	objects map[string]map[string]*unstructured.Unstructured // by collection, such as api/v1/pods, and namespace/name
	ports   map[string]string                                // the address that is behind a port of any pod
	token   string
}

// startKubernetes serves until the test ends, and returns the path of a kubeconfig for it.
func startKubernetes(t *testing.T, dir string, ports map[string]string, token string) (kubeconfig string) {
	t.Helper()
	k := &kubernetes{t: t, objects: map[string]map[string]*unstructured.Unstructured{}, ports: ports, token: token}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		k.load(file)
	}
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func (k *kubernetes) load(file string) {
	k.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	for document := range strings.SplitSeq("\n"+string(text), "\n---") {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			k.t.Fatalf("%s: %v", file, err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetKind() == "Pod" {
			inject(&o)
		}
		resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		root := "apis/" + o.GetAPIVersion()
		if resource.Group == "" {
			root = "api/" + o.GetAPIVersion()
		}
		collection := root + "/" + resource.Resource
		if k.objects[collection] == nil {
			k.objects[collection] = map[string]*unstructured.Unstructured{}
		}
		k.objects[collection][o.GetNamespace()+"/"+o.GetName()] = &o
	}
}

// inject makes the pod one that has a sidecar which is ready.
func inject(pod *unstructured.Unstructured) {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	containers = append(containers, map[string]any{"name": "istio-proxy", "image": "example/meshbridge"})
	status := []any{map[string]any{"name": "istio-proxy", "ready": true}}
	_ = unstructured.SetNestedSlice(pod.Object, containers, "spec", "containers")
	_ = unstructured.SetNestedSlice(pod.Object, status, "status", "containerStatuses")
}

func (k *kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.Trim(r.URL.Path, "/")
	if strings.HasSuffix(p, "/portforward") {
		k.forward(w, r)
		return
	}
	if strings.HasSuffix(p, "/token") {
		answer(w, http.StatusCreated, authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: k.token, ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
		}})
		return
	}
	root, rest, namespace := p, "", ""
	if before, after, ok := strings.Cut(p, "/namespaces/"); ok && strings.Contains(after, "/") {
		namespace, rest, _ = strings.Cut(after, "/")
		root = before
	} else {
		root, rest = path.Split(p)
		root = strings.TrimSuffix(root, "/")
	}
	resource, name, single := strings.Cut(rest, "/")
	collection := k.objects[root+"/"+resource]
	switch o := collection[namespace+"/"+name]; {
	case p == "version":
		answer(w, http.StatusOK, map[string]string{"major": "1", "minor": "36", "gitVersion": "v1.36.1"})
	case single && o != nil:
		answer(w, http.StatusOK, o.Object)
	case single:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", resource, name))
	default:
		k.list(w, r, collection, namespace)
	}
}

func (k *kubernetes) list(w http.ResponseWriter, r *http.Request, collection map[string]*unstructured.Unstructured, namespace string) {
	query := r.URL.Query()
	if query.Get("sendInitialEvents") != "" {
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "only lists") // istioctl then lists
		return
	}
	if query.Get("watch") != "" {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // nothing changes
		return
	}
	byLabel, errLabel := labels.Parse(query.Get("labelSelector"))
	byField, errField := fields.ParseSelector(query.Get("fieldSelector"))
	if err := errors.Join(errLabel, errField); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	items := []any{}
	for _, o := range collection {
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		named := fields.Set{"metadata.name": o.GetName(), "status.phase": phase}
		if (namespace == "" || o.GetNamespace() == namespace) && byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(named) {
			items = append(items, o.Object)
		}
	}
	// Without a kind it is taken for what was asked for.
	answer(w, http.StatusOK, map[string]any{"metadata": map[string]any{"resourceVersion": "1"}, "items": items})
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: message,
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// forward answers a request to forward ports as a kubelet does: of each pair of streams one carries the
// bytes of a connection, the other errors.
func (k *kubernetes) forward(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "websocket" {
		http.Error(w, "only SPDY", http.StatusBadRequest) // istioctl then tries SPDY
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		if s.Headers().Get("streamType") == "data" {
			go func() {
				<-replied
				k.relay(s)
			}()
		} else {
			go func() {
				<-replied
				_ = s.Close() // no error
			}()
		}
		return nil
	})
	if connection != nil {
		<-connection.CloseChan()
	}
}

func (k *kubernetes) relay(s httpstream.Stream) {
	defer func() { _ = s.Reset() }()
	var d net.Dialer
	port := s.Headers().Get("port")
	conn, err := d.DialContext(k.t.Context(), "tcp", k.ports[port])
	if err != nil {
		k.t.Logf("forwarded port %s: %v", port, err)
		return
	}
	go func() {
		_, _ = io.Copy(conn, s)
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // tcp was dialled
	}()
	_, _ = io.Copy(s, conn)
	_ = conn.Close()
	_ = s.Close()
}
