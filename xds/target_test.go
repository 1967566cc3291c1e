package xds_test

import (
	"strings"
	"testing"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]xds.Target{
		"grpc://istiod.istio-system.svc:15010": {Scheme: xds.SchemePlaintext, Address: "istiod.istio-system.svc:15010"},
		"grpcs://10.0.0.1:15012":               {Scheme: xds.SchemeTLS, Address: "10.0.0.1:15012"},
		"grpcs://[2001:db8::1]:15012/":         {Scheme: xds.SchemeTLS, Address: "[2001:db8::1]:15012"},
		"file:testdata/xds":                    {Scheme: xds.SchemeFile, Path: "testdata/xds"},
		"file:/etc/xds":                        {Scheme: xds.SchemeFile, Path: "/etc/xds"},
		"file:///etc/xds/lds.json":             {Scheme: xds.SchemeFile, Path: "/etc/xds/lds.json"},
	} {
		if got, err := xds.ParseTarget(in); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseTargetSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "want grpc://",
		"istiod:15010":              "want grpc://",
		"http://istiod:15010":       "want grpc://",
		"grpc:istiod:15010":         "want grpc://",
		"grpc://istiod":             "no port",
		"grpc://istiod:0":           "no port",
		"grpc://istiod:70000":       "no port",
		"grpc://:15010":             "no host",
		"grpcs://istiod:15012/path": "more than a host and a port",
		"grpcs://me@istiod:15012":   "more than a host and a port",
		"file:":                     "names no file",
		"grpc://[::1:15010":         "]",
	} {
		if _, err := xds.ParseTarget(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", in, err, want)
		}
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		config xds.Config
		want   string
	}{
		"address": {xds.Config{Address: "istiod", Node: xdstest.Node()}, "missing port"},
		"node":    {xds.Config{Address: "istiod:15010"}, "node has no id"},
		"twice":   {xds.Config{Address: "istiod:15010", Node: xdstest.Node(), Types: []string{xds.ClusterType, xds.ClusterType}}, "twice"},
		"type":    {xds.Config{Address: "istiod:15010", Node: xdstest.Node(), Types: []string{"Cluster"}}, `"Cluster" is not a type URL`},
	} {
		if _, err := xds.New(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
}
