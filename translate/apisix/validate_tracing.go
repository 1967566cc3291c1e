package apisix

import (
	"slices"
	"strings"
)

// The plugins of tracing that an APISIX does not load unless it is told to: their schemas are not in the
// answer of its control API, so that what they allow is here in full.

// smallestSampleRatio and the samplers are those of the plugins' schemas.
const (
	smallestSampleRatio = 0.00001
	samplerParent       = "parent_base"
)

func rootSamplers() []string { return []string{"always_on", "always_off", "trace_id_ratio"} }

// skyWalking checks the configuration of skywalking.
func (v *pluginValidation) skyWalking() {
	var c struct {
		SampleRatio *float64 `json:"sample_ratio"`
	}
	if v.decode(&c) && c.SampleRatio != nil && (*c.SampleRatio < smallestSampleRatio || *c.SampleRatio > 1) {
		v.fail(v.field("sample_ratio"), "%v is not between %v and 1", *c.SampleRatio, smallestSampleRatio)
	}
}

// otelSampler is a sampler of opentelemetry; that at the root of a trace has no root of its own.
type otelSampler struct {
	Name    *string `json:"name"`
	Options *struct {
		Fraction *float64     `json:"fraction"`
		Root     *otelSampler `json:"root"`
	} `json:"options"`
}

// openTelemetry checks the configuration of opentelemetry.
func (v *pluginValidation) openTelemetry() {
	var c struct {
		Sampler              *otelSampler `json:"sampler"`
		Attributes           []string     `json:"additional_attributes"`
		AttributesByPrefixes []string     `json:"additional_header_prefix_attributes"`
	}
	if !v.decode(&c) {
		return
	}
	if c.Sampler != nil {
		v.sampler(v.field("sampler"), c.Sampler, append(rootSamplers(), samplerParent))
		if c.Sampler.Options != nil && c.Sampler.Options.Root != nil {
			v.sampler(v.field("sampler.options.root"), c.Sampler.Options.Root, rootSamplers())
		}
	}
	for field, names := range map[string][]string{
		"additional_attributes": c.Attributes, "additional_header_prefix_attributes": c.AttributesByPrefixes,
	} {
		if slices.Contains(names, "") {
			v.fail(v.field(field), "has an empty name")
		}
	}
}

func (v *pluginValidation) sampler(path string, s *otelSampler, known []string) {
	if s.Name != nil && !slices.Contains(known, *s.Name) {
		v.fail(path+".name", "%q is none of %s", *s.Name, strings.Join(known, ", "))
	}
}
