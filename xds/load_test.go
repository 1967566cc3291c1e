package xds_test

import (
	"path/filepath"
	"testing"

	"meshbridge/xds"
)

func TestRecordedScenariosLoadCompletely(t *testing.T) {
	dirs, err := filepath.Glob("../testdata/istiod/*/xds")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, d := range dirs {
		s, rej, err := xds.LoadFiles(d)
		if err != nil || len(rej) > 0 {
			t.Errorf("%s: %v %v", d, rej, err)
			continue
		}
		t.Log(d, s.Len(xds.ListenerType), s.Len(xds.RouteType), s.Len(xds.ClusterType), s.Len(xds.EndpointType), s.Len(xds.NameTableType))
	}
}
