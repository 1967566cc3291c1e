package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/extend"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// extendOptions say what users add.
type extendOptions struct{ directory, schema string }

func (o *extendOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.directory, "extensions", "", "`directory` with plugins, global rules, consumers and more to add, read again when it changes; see docs/extensions.md")
	f.StringVar(&o.schema, "extensions-schema", "", "APISIX's own schemas to check --extensions with: `file or URL` of /v1/schema; default: those of APISIX "+apisix.Version{}.OrDefault().String())
}

// config returns nil where there is no directory. plugins are those that are loaded besides the defaults.
func (o *extendOptions) config(ctx context.Context, version apisix.Version, node xds.NodeConfig, plugins []string) (*bridge.ExtensionsConfig, error) {
	if o.directory == "" {
		if o.schema != "" {
			return nil, fmt.Errorf("--extensions-schema %s: there is nothing to check without --extensions", o.schema)
		}
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls none
	}
	c := &bridge.ExtensionsConfig{Directory: o.directory, Config: extend.Config{
		Version: version, Labels: labelsOf(node),
		Loaded: apisixconfig.Plugins(version, plugins), StreamLoaded: apisixconfig.StreamPlugins(version),
	}}
	if o.schema != "" {
		var err error
		if c.Schemas, err = readSchema(ctx, o.schema); err != nil {
			return nil, fmt.Errorf("--extensions-schema: %w", err)
		}
	}
	return c, nil
}

// optionalPlugins are those that the directory names and that APISIX has, but does not load unless told to.
func (o *extendOptions) optionalPlugins(version apisix.Version) ([]string, error) {
	if o.directory == "" {
		return nil, nil
	}
	files, err := extend.ReadDirectory(o.directory)
	if err != nil {
		return nil, fmt.Errorf("--extensions: %w", err)
	}
	optional := apisixconfig.OptionalPlugins(version)
	return slices.DeleteFunc(extend.PluginNames(files), func(name string) bool { return !slices.Contains(optional, name) }), nil
}

// labelsOf are the labels of the workload's pod, as istiod is told them.
func labelsOf(node xds.NodeConfig) map[string]string {
	labels := map[string]string{}
	if known, err := node.Node(); err == nil {
		for name, value := range known.GetMetadata().GetFields()["LABELS"].GetStructValue().GetFields() {
			labels[name] = value.GetStringValue()
		}
		return labels
	}
	return node.Labels // files can be translated without an identity
}

// offlineExtendOptions are for one translation of files.
type offlineExtendOptions struct {
	extendOptions
	plugins []string
}

func (o *offlineExtendOptions) add(f *pflag.FlagSet) {
	o.extendOptions.add(f)
	f.StringSliceVar(&o.plugins, "apisix-plugins", nil, "with --extensions: `names` of plugins that are loaded besides APISIX's defaults")
}

// load reads the directory once.
func (o *offlineExtendOptions) load(ctx context.Context, version apisix.Version, node xds.NodeConfig) (translate.Extensions, error) {
	c, err := o.config(ctx, version, node, o.plugins)
	if err != nil || c == nil {
		return nil, err
	}
	files, err := extend.ReadDirectory(c.Directory)
	if err != nil {
		return nil, fmt.Errorf("--extensions: %w", err)
	}
	return extend.Load(c.Config, files, nil)
}
