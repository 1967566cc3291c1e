package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

const (
	envPrefix       = "MESHBRIDGE_"
	configFlag      = "config"
	printConfigFlag = "print-config"
)

// addConfigFlags adds the flags that say where configuration comes from.
func addConfigFlags(cmd *cobra.Command) {
	cmd.Flags().String(configFlag, "", "YAML `file` with flag names as keys; an unknown key is an error")
	cmd.Flags().Bool(printConfigFlag, false, "print every setting and where it came from, and exit")
}

// origins says where each flag's value came from.
type origins map[string]string

// resolve fills flags that were not given from the environment (MESHBRIDGE_<FLAG>), then from the
// configuration file: flag > environment > file > default.
func resolve(flags *pflag.FlagSet, getenv func(string) string) (origins, error) {
	from := origins{}
	flags.VisitAll(func(f *pflag.Flag) {
		from[f.Name] = "default"
		if f.Changed {
			from[f.Name] = "flag --" + f.Name
		}
	})
	var errs []error
	fill := func(f *pflag.Flag, value, source string) {
		if from[f.Name] != "default" {
			return
		}
		if err := set(flags, f, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", source, f.Name, err))
		}
		from[f.Name] = source
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !configurable(f.Name) && f.Name != configFlag {
			return
		}
		name := envName(f.Name)
		if value := getenv(name); value != "" {
			fill(f, value, "environment "+name)
		}
	})
	file, err := flags.GetString(configFlag)
	if err != nil {
		return nil, err
	}
	if file != "" {
		values, err := readConfigFile(file)
		if err != nil {
			return nil, err
		}
		for key, value := range values {
			f := flags.Lookup(key)
			if f == nil || !configurable(key) {
				errs = append(errs, fmt.Errorf("file %s: unknown key %q", file, key))
				continue
			}
			fill(f, value, "file "+file)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return from, errors.Join(errs...)
}

// set gives a flag a value. An empty list is one without elements, and not one empty element.
func set(flags *pflag.FlagSet, f *pflag.Flag, value string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok && value == "" {
		return list.Replace(nil)
	}
	return flags.Set(f.Name, value)
}

// configurable tells whether a flag is a setting, and not about this one call.
func configurable(name string) bool {
	return name != configFlag && name != printConfigFlag && name != "help"
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readConfigFile returns the file's settings as flags would spell them. Lists may be YAML lists.
func readConfigFile(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	var raw map[string]any
	if err := yaml.UnmarshalStrict(data, &raw); err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	values := make(map[string]string, len(raw))
	for key, v := range raw {
		switch v := v.(type) {
		case string:
			values[key] = v
		case bool, float64, int64:
			values[key] = fmt.Sprint(v)
		case []any:
			items := make([]string, len(v))
			for i, item := range v {
				items[i] = fmt.Sprint(item)
			}
			values[key] = strings.Join(items, ",")
		default:
			return nil, fmt.Errorf("configuration file %s: key %q: want a string, number, boolean or list", path, key)
		}
	}
	return values, nil
}

// printConfig writes every setting as YAML that --config accepts, with its origin as a comment.
func printConfig(w io.Writer, flags *pflag.FlagSet, from origins) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		if err != nil || !configurable(f.Name) || f.Hidden {
			return
		}
		var data []byte
		if data, err = yaml.Marshal(map[string]string{f.Name: f.Value.String()}); err != nil {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			// An empty list is [] and not null, which --config would refuse.
			if data, err = yaml.Marshal(map[string][]string{f.Name: append([]string{}, list.GetSlice()...)}); err != nil {
				return
			}
			data = []byte(strings.ReplaceAll(string(data), "\n- ", "\n  - "))
		}
		_, err = fmt.Fprintf(w, "# from %s\n%s", from[f.Name], data)
	})
	return err
}

// effective are the settings of a command that are not the defaults, for the log: what could be a secret is
// masked.
func effective(flags *pflag.FlagSet) slog.Attr {
	var set []any
	flags.VisitAll(func(f *pflag.Flag) {
		if value := f.Value.String(); configurable(f.Name) && !f.Hidden && value != f.DefValue {
			set = append(set, slog.String(strings.ReplaceAll(f.Name, "-", "_"), masked(f.Name, value)))
		}
	})
	return slog.Group("settings", set...)
}

// masked is a value without what could be a secret: passwords in URLs, metadata of whatever kind, and what
// has a name that says so.
func masked(name, value string) string {
	secret := slices.ContainsFunc([]string{"password", "secret", "header", "metadata"}, func(part string) bool { return strings.Contains(name, part) })
	if secret && !strings.HasSuffix(name, "-file") {
		return "[redacted]"
	}
	return regexp.MustCompile(`//[^/@\s]*@`).ReplaceAllString(value, "//[redacted]@")
}
