package cli

import (
	"io"
	"strings"
	"testing"
)

func TestAGatewayReplacesWhatClientsSayOfThemselves(t *testing.T) {
	o := modeOptions{mode: "sidecar", status: "127.0.0.1:7085", prometheus: "0.0.0.0:15090"}
	ports := proxyPortOptions{http: 15480, https: 15481, streams: "16000-16511"}
	for _, edge := range []bool{true, false} {
		c, err := o.config(apisixOptions{profile: "mesh", version: "3.18"}, ports, "/apisix", edge, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		file, err := c.Render("http://127.0.0.1:2379")
		if err != nil {
			t.Fatal(err)
		}
		if trusts := strings.Contains(string(file), "trusted_addresses"); trusts == edge {
			t.Errorf("edge %v: trusts the x-forwarded headers of clients: %v", edge, trusts)
		}
	}
}

func TestModesThatCannotStartAreRefused(t *testing.T) {
	ports := proxyPortOptions{http: 15480, https: 15481, streams: "16000-16511"}
	valid := modeOptions{mode: "sidecar", status: "127.0.0.1:7085", prometheus: "0.0.0.0:15090"}
	for want, change := range map[string]func(*modeOptions){
		"want standalone or sidecar": func(o *modeOptions) { o.mode = "bundle" },
		"say on which ports":         func(*modeOptions) {},
		"is no port number":          func(o *modeOptions) { o.http = []uint{70000} },
	} {
		o := valid
		change(&o)
		_, err := o.config(apisixOptions{profile: "gateway", version: "3.18"}, ports, "/apisix", true, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	valid.https = []uint{8443}
	if _, err := valid.config(apisixOptions{profile: "gateway", version: "3.18"}, ports, "/apisix", true, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
}
