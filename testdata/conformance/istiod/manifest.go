package istiod

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
	kubelib "istio.io/istio/pkg/kube"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Key identifies one object of the API server istiod believes to talk to.
type Key struct {
	Resource  schema.GroupVersionResource
	Namespace string
	Name      string
}

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Resource.Resource + " " + k.Name
	}
	return k.Resource.Resource + " " + k.Namespace + "/" + k.Name
}

// Document is one decoded and validated YAML document.
type Document struct {
	Key Key
	// Source is where it was read: file name and ordinal number, from 1.
	Source string
	// JSON is the document in canonical form, to tell whether it changed.
	JSON []byte
	// Object is the typed Kubernetes object.
	Object runtime.Object
	// Config is the same object in Istio's own form; nil for kinds that are
	// not Istio's.
	Config *config.Config
	// Created is when istiod was first told of the object.
	Created time.Time
}

// created stamps the document's object with a time of creation, as an API
// server would: istiod lets the older of two conflicting objects win.
func (d *Document) created(at time.Time) error {
	object, err := meta.Accessor(d.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Source, err)
	}
	object.SetCreationTimestamp(metav1.NewTime(at))
	if d.Config != nil {
		d.Config.CreationTimestamp = at
	}
	d.Created = at
	return nil
}

// Manifests is a directory of .yaml, .yml and .json files.
type Manifests struct {
	Dir string
	// MeshFile is istiod's MeshConfig; empty means Istio's defaults. It may
	// lie in Dir without being taken for a manifest.
	MeshFile string
	// SkipValidation accepts what Istio's admission webhook would refuse, as
	// in a cluster that runs without the webhook.
	SkipValidation bool
}

// Load reads the files in the order of their names. It is as strict as an API
// server with strict field validation and Istio's admission webhook together:
// an unknown field, a value Istio refuses or a duplicate object is an error
// that names file and document.
func (m Manifests) Load() ([]Document, error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, fmt.Errorf("manifest directory: %w", err)
	}
	var docs []Document
	sources := make(map[Key]string)
	for _, entry := range entries {
		if entry.IsDir() || !m.include(filepath.Join(m.Dir, entry.Name())) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		fromFile, err := ParseFile(entry.Name(), text, !m.SkipValidation)
		if err != nil {
			return nil, err
		}
		for _, doc := range fromFile {
			if first, ok := sources[doc.Key]; ok {
				return nil, fmt.Errorf("%s: %s is already defined in %s", doc.Source, doc.Key, first)
			}
			sources[doc.Key] = doc.Source
			docs = append(docs, doc)
		}
	}
	return docs, nil
}

func (m Manifests) include(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) &&
		(m.MeshFile == "" || filepath.Clean(path) != filepath.Clean(m.MeshFile))
}

// ParseFile reads the documents of one file, as strictly as Load does; validate is whether Istio's
// admission webhook is asked.
func ParseFile(name string, text []byte, validate bool) ([]Document, error) {
	var docs []Document
	reader := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for ordinal := 1; ; ordinal++ {
		chunk, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		source := fmt.Sprintf("%s document %d", name, ordinal)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		raw, err := yaml.YAMLToJSONStrict(chunk)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if string(raw) == "null" {
			continue // only comments
		}
		doc, err := parseDocument(raw, validate)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		doc.Source = source
		docs = append(docs, doc)
	}
}

func parseDocument(raw []byte, validate bool) (Document, error) {
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON(raw); err != nil {
		return Document{}, err
	}
	gvk := object.GroupVersionKind()
	found, ok := collections.All.FindByGroupVersionAliasesKind(resource.FromKubernetesGVK(&gvk))
	if !ok {
		return Document{}, fmt.Errorf("%s %s: istiod does not read this kind", gvk.GroupVersion(), gvk.Kind)
	}
	where := fmt.Sprintf("%s %s", gvk.Kind, object.GetName())
	if object.GetName() == "" {
		return Document{}, fmt.Errorf("%s: metadata.name is missing", gvk.Kind)
	}
	// istiod watches one version of each kind; an API server would convert.
	object.SetAPIVersion(found.GroupVersionKind().Kubernetes().GroupVersion().String())
	if found.IsClusterScoped() {
		object.SetNamespace("")
	} else if object.GetNamespace() == "" {
		object.SetNamespace("default")
	}
	canonical, err := object.MarshalJSON()
	if err != nil {
		return Document{}, fmt.Errorf("%s: %w", where, err)
	}
	doc := Document{
		Key:  Key{Resource: found.GroupVersionResource(), Namespace: object.GetNamespace(), Name: object.GetName()},
		JSON: canonical,
	}
	// Istio's own conversion first: its errors name the field.
	if _, isIstio := collections.Pilot.FindByGroupVersionKind(found.GroupVersionKind()); isIstio {
		if doc.Config, err = toConfig(found, canonical, validate); err != nil {
			return Document{}, fmt.Errorf("%s: %w", where, err)
		}
	}
	if doc.Object, err = decodeStrict(canonical); err != nil {
		return Document{}, fmt.Errorf("%s: %w", where, err)
	}
	return doc, nil
}

func decodeStrict(raw []byte) (runtime.Object, error) {
	decoder := kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, kubelib.IstioScheme, kubelib.IstioScheme,
		kubejson.SerializerOptions{Strict: true})
	object, _, err := decoder.Decode(raw, nil, nil)
	return object, err
}

// toConfig converts an object of an Istio kind. The specs are protobuf
// messages whose own JSON decoder skips unknown fields, so the strict
// Kubernetes decoder does not see inside them.
func toConfig(found resource.Schema, raw []byte, validate bool) (*config.Config, error) {
	var object crd.IstioKind
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	converted, err := crd.ConvertObjectInternal(found, &object, "cluster.local",
		func(s resource.Schema, js string) (config.Spec, error) {
			spec, err := s.NewInstance()
			if err != nil {
				return nil, err
			}
			return spec, config.ApplyJSONStrict(spec, js)
		})
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if validate {
		if _, err := found.ValidateConfig(*converted); err != nil {
			return nil, fmt.Errorf("refused by Istio's validation: %w", err)
		}
	}
	return converted, nil
}
