package translate

import (
	"encoding/json"
	"testing"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

func TestObjectsTellTheResourcesThatTheyAreMadeFrom(t *testing.T) {
	kinds := map[apisix.Kind]int{}
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			s := captured(t, sc.with(p), sc.snapshot)
			for o := range s.Objects() {
				kinds[o.Kind]++
				var says struct {
					Name, Desc string
					Labels     map[string]string
				}
				if err := json.Unmarshal(o.Value, &says); err != nil {
					t.Fatal(err)
				}
				from := SourcesOf(o.Kind, says.Name, says.Desc, says.Labels)
				var keys []xds.Key
				switch o.Kind {
				case apisix.KindUpstream, apisix.KindStreamRoute:
					// The cluster may not exist: a route refers to it.
					if s.clusters[from.Cluster] == nil {
						t.Errorf("%s, profile %s: %s says that it is made from cluster %q", sc.name, p.Name(), o.Key(), from.Cluster)
					}
					continue
				case apisix.KindSSL:
					for _, name := range from.Secrets {
						keys = append(keys, xds.Key{Type: xds.SecretType, Name: name})
					}
				case apisix.KindGlobalRule: // of all listeners
					continue
				default:
					keys = append(keys, xds.Key{Type: xds.ListenerType, Name: from.Listener})
				}
				for _, key := range keys {
					if sc.snapshot.Get(key) == nil {
						t.Errorf("%s, profile %s: %s says that it is made from %s, which is not there", sc.name, p.Name(), o.Key(), key)
					}
				}
				if len(keys) == 0 {
					t.Errorf("%s, profile %s: %s does not say what it is made from", sc.name, p.Name(), o.Key())
				}
			}
		}
	}
	for _, kind := range []apisix.Kind{apisix.KindRoute, apisix.KindUpstream, apisix.KindStreamRoute, apisix.KindSSL, apisix.KindPluginConfig} {
		if kinds[kind] == 0 {
			t.Errorf("no recording gives %s", kind)
		}
	}
}

func TestVariantsOfAClusterTellTheCluster(t *testing.T) {
	const cluster = "outbound|80|v1|a~b.ns.svc.cluster.local"
	for _, v := range []variant{
		{retries: defaultRetries},
		{retries: defaultRetries, grpc: true},
		{retries: defaultRetries, mirrored: true},
		{tcp: true},
		{retries: 5, retryTimeout: 1500000000},
		{retries: 1, grpc: true, retryTimeout: 25000, hash: "header:x-user", host: "node"},
		{retries: defaultRetries, host: "a.example"},
		{retries: defaultRetries, hash: "cookie:~r1"},
	} {
		if from := SourcesOf(apisix.KindUpstream, cluster+v.suffix(), "DestinationRule a/b", nil); from.Cluster != cluster || from.Origin != "DestinationRule a/b" {
			t.Errorf("%q: %+v", v.suffix(), from)
		}
	}
}
