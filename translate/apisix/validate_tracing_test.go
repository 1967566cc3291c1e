package apisix

import (
	"strings"
	"testing"
)

// The Admin API of APISIX 3.18 gives these answers about opentelemetry; those about skywalking follow its schema.
func TestTracingPluginsAreCheckedAsTheirSchemasAre(t *testing.T) {
	for _, test := range []struct{ plugin, config, want string }{
		{"skywalking", `{}`, ""},
		{"skywalking", `{"sample_ratio":0.125}`, ""},
		{"skywalking", `{"sample_ratio":0.00001}`, ""},
		{"skywalking", `{"sample_ratio":1}`, ""},
		{"skywalking", `{"sample_ratio":0}`, "sample_ratio"},
		{"skywalking", `{"sample_ratio":1.5}`, "sample_ratio"},
		{"skywalking", `{"sample_ratio":"1"}`, "skywalking"},
		{"opentelemetry", `{}`, ""},
		{"opentelemetry", `{"sampler":{"name":"parent_base","options":{"root":{"name":"trace_id_ratio","options":{"fraction":0.125}}}}}`, ""},
		{"opentelemetry", `{"sampler":{"name":"always_on"}}`, ""},
		{"opentelemetry", `{"sampler":{"name":"sometimes"}}`, "sampler.name"},
		{"opentelemetry", `{"sampler":{"name":"parent_base","options":{"root":{"name":"parent_base"}}}}`, "sampler.options.root.name"},
		{"opentelemetry", `{"sampler":{"options":{"fraction":"1"}}}`, "opentelemetry"},
		{"opentelemetry", `{"additional_attributes":["http_user_agent"]}`, ""},
		{"opentelemetry", `{"additional_attributes":[""]}`, "additional_attributes"},
		{"opentelemetry", `{"additional_header_prefix_attributes":[""]}`, "additional_header_prefix_attributes"},
	} {
		err := Validate(pluginObject(test.plugin, test.config), Version{})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s %s: %v", test.plugin, test.config, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s %s: got %v, want an error about %s", test.plugin, test.config, err, test.want)
		}
	}
}
