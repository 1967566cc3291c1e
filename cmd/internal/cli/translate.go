package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"meshbridge/cmd/internal/allocate"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// schemaEnv names a file or control API URL with an APISIX's own JSON schemas.
const schemaEnv = "APISIX_SCHEMA"

type translateOptions struct {
	file, output, schema, explain string
	node                          nodeOptions
	translation                   translationOptions
	resolve                       bool
	dns                           dnsOptions
	extend                        offlineExtendOptions
}

func newTranslate(a *app) *cobra.Command {
	var o translateOptions
	cmd := &cobra.Command{
		Use:   "translate",
		Short: "Translate recorded xDS offline",
		Long: `Translate xDS from a file or directory: discovery responses, or a config dump of
Envoy or istiod. The APISIX objects go to stdout, diagnostics to stderr. The exit
code is 1 if a diagnostic is an error or a resource is refused.

With --explain, say what a diagnostic code means and which constructs have it.`,
		Example: `  meshbridge translate -f config_dump.json
  meshbridge translate --explain mirror_not_sent
  meshbridge translate -f testdata/istiod/gateway-tls/xds --profile gateway -o table
  meshbridge translate -f config_dump.json --extensions ./extensions -o table
  meshbridge translate -f config_dump.json --schema http://127.0.0.1:9090/v1/schema -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.explain != "" {
				return explainCode(a.stdout, o.explain)
			}
			return withConfig(a, cmd, func() error { return runTranslate(cmd.Context(), a, o) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "`path` of a file or directory (required)")
	f.StringVarP(&o.output, "output", "o", "yaml", "`yaml|json|table`")
	f.StringVar(&o.explain, "explain", "", "print what a diagnostic `code` means, and translate nothing")
	f.StringVar(&o.schema, "schema", "", "check every object against an APISIX's own schemas: `file or URL` of /v1/schema;\n--schema alone takes it from $"+schemaEnv)
	f.Lookup("schema").NoOptDefVal = "$" + schemaEnv
	f.StringVar(&o.node.id, "node-id", "", "xDS node `id` of the proxy that the resources are for; its IP is the node of inbound upstreams")
	f.StringVar(&o.node.metadata, "node-metadata", "", "`JSON` object merged over the node metadata, such as '{\"LABELS\": {\"app\": \"reviews\"}}'")
	o.translation.add(f)
	o.extend.add(f)
	f.BoolVar(&o.resolve, "resolve", false, "resolve the names of endpoints now, as run does, and print their addresses; without it they stay names")
	o.dns.add(f)
	addConfigFlags(cmd)
	return cmd
}

// explainCode prints what there is to say about a diagnostic code, or which codes are most like it.
func explainCode(w io.Writer, name string) error {
	if text, ok := translate.Explanation(translate.Code(name)); ok {
		_, err := io.WriteString(w, text)
		return err
	}
	return usageError{fmt.Errorf("--explain %q: there is no such diagnostic code; the nearest are %s", name, strings.Join(nearestCodes(name), ", "))}
}

// nearestCodes returns the codes that are most like a name: those that share words with it, or else
// most of its letters in order.
func nearestCodes(name string) []string {
	const most = 3
	type candidate struct {
		code     string
		distance int
	}
	var all []candidate
	for _, info := range translate.Codes() {
		code := string(info.Code)
		distance := editDistance(strings.ToLower(name), code)
		for word := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return r == '_' || r == '-' || r == ' ' }) {
			if slices.Contains(strings.Split(code, "_"), word) {
				distance -= 2 * len(word)
			}
		}
		all = append(all, candidate{code, distance})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.distance - b.distance })
	out := make([]string, 0, most)
	for _, c := range all[:min(most, len(all))] {
		out = append(out, c.code)
	}
	return out
}

// editDistance is the number of bytes to insert, delete or replace to make b of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func runTranslate(ctx context.Context, a *app, o translateOptions) error {
	write, ok := map[string]func(io.Writer, []apisix.Object) error{
		"yaml": writeYAML, "json": writeJSONList, "table": writeTable,
	}[o.output]
	if !ok {
		return usageError{fmt.Errorf("--output %q: want yaml, json or table", o.output)}
	}
	inputs := withoutInputs
	if o.resolve {
		inputs = func(s *xds.Snapshot) (translate.Inputs, error) { return o.dns.lookup(ctx, s) }
	}
	state, _, rejected, err := translateFile(ctx, a, o.file, o.node, o.translation, o.extend, inputs)
	if err != nil {
		return err
	}
	objects := slices.Collect(state.Objects())
	shown := make([]apisix.Object, len(objects))
	for i, o := range objects {
		shown[i] = o.Redacted()
	}
	if err := write(a.stdout, shown); err != nil {
		return err
	}
	failed := len(rejected) > 0
	for _, r := range rejected {
		fmt.Fprintf(a.stderr, "error: %s [rejected]\n", r)
	}
	for _, d := range state.Diagnostics() {
		fmt.Fprintln(a.stderr, d)
		failed = failed || d.Severity == translate.SeverityError
	}
	if o.schema != "" {
		bad, err := checkSchemas(ctx, a, o.schema, objects)
		if err != nil {
			return err
		}
		failed = failed || bad
	}
	if failed {
		return errReported
	}
	return nil
}

// withoutInputs leaves names to APISIX: what is printed depends on the files alone.
func withoutInputs(*xds.Snapshot) (translate.Inputs, error) { return translate.Inputs{}, nil }

// translateFile translates a file or directory from scratch.
func translateFile(
	ctx context.Context, a *app, path string, n nodeOptions, t translationOptions, e offlineExtendOptions,
	inputs func(*xds.Snapshot) (translate.Inputs, error),
) (*translate.State, translate.Profile, []xds.Rejection, error) {
	if path == "" {
		return nil, nil, nil, usageError{errors.New("--file: say what to translate")}
	}
	node, err := n.config(a)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	options, err := t.options(node)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	options.Internal = netip.MustParseAddrPort(defaultInternal)
	extensions, err := e.load(ctx, options.APISIXVersion, node)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	snapshot, rejected, err := xds.LoadFiles(path)
	if err != nil {
		return nil, nil, nil, err
	}
	in, err := inputs(snapshot)
	if err != nil {
		return nil, nil, nil, err
	}
	if in.Allocations, err = allocate.Open(defaultNumbers()); err != nil {
		return nil, nil, nil, err
	}
	in.Extensions = extensions
	state, _, err := translate.Translate(options, snapshot, in)
	return state, options.Profile, rejected, err
}

// checkSchemas reports every object that the APISIX with these schemas would refuse.
func checkSchemas(ctx context.Context, a *app, source string, objects []apisix.Object) (bad bool, err error) {
	if source == "$"+schemaEnv {
		if source = a.getenv(schemaEnv); source == "" {
			return false, usageError{fmt.Errorf("--schema: %s is not set; name a file or the URL of /v1/schema", schemaEnv)}
		}
	}
	raw, err := readSchema(ctx, source)
	if err != nil {
		return false, fmt.Errorf("schemas: %w", err)
	}
	schemas, err := apisix.ParseSchemas(raw)
	if err != nil {
		return false, fmt.Errorf("schemas of %s: %w", source, err)
	}
	for _, o := range objects {
		if err := schemas.Check(o); err != nil {
			fmt.Fprintf(a.stderr, "error: %v [schema]\n", err)
			bad = true
		}
	}
	return bad, nil
}

func readSchema(ctx context.Context, source string) ([]byte, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		return os.ReadFile(source)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", source, response.Status)
	}
	return io.ReadAll(response.Body)
}

// keyed is an object as translate prints it.
type keyed struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func writeYAML(w io.Writer, objects []apisix.Object) error {
	for _, o := range objects {
		data, err := json.Marshal(keyed{Key: o.Key(), Value: o.Value})
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key(), err)
		}
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("%s: %w", o.Key(), err)
		}
		if _, err = fmt.Fprintf(w, "---\n%s", data); err != nil {
			return err
		}
	}
	return nil
}

func writeJSONList(w io.Writer, objects []apisix.Object) error {
	list := make([]keyed, len(objects))
	for i, o := range objects {
		list[i] = keyed{Key: o.Key(), Value: o.Value}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

func writeTable(w io.Writer, objects []apisix.Object) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tID\tMATCH\tTO")
	for _, o := range objects {
		match, to := "", ""
		switch o.Kind {
		case apisix.KindRoute:
			var r apisix.Route
			if err := json.Unmarshal(o.Value, &r); err != nil {
				return fmt.Errorf("%s: %w", o.Key(), err)
			}
			match, to = describeRoute(&r)
		case apisix.KindUpstream:
			var u apisix.Upstream
			if err := json.Unmarshal(o.Value, &u); err != nil {
				return fmt.Errorf("%s: %w", o.Key(), err)
			}
			match, to = u.Type, describeNodes(u.Nodes)
		case apisix.KindSSL:
			var s apisix.SSL
			if err := json.Unmarshal(o.Value, &s); err != nil {
				return fmt.Errorf("%s: %w", o.Key(), err)
			}
			match, to = strings.TrimSpace(strings.Join(append(slices.Clone(s.SNIs), s.SNI), " ")), describeExpiry(&s)
		default: // which nothing is matched by
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", o.Kind, o.ID, match, to)
	}
	return tw.Flush()
}

func describeRoute(r *apisix.Route) (match, to string) {
	host := "*"
	if len(r.Hosts) > 0 {
		host = r.Hosts[0]
		if more := len(r.Hosts) - 1; more > 0 {
			host += fmt.Sprintf(" (+%d)", more)
		}
	}
	paths := strings.Join(append(slices.Clone(r.URIs), r.URI), " ")
	match = fmt.Sprintf("%s %s prio %d, %d vars", host, strings.TrimSpace(paths), r.Priority, len(r.Vars))
	to = r.UpstreamID
	if to == "" {
		plugins := make([]string, 0, len(r.Plugins))
		for name := range r.Plugins {
			plugins = append(plugins, name)
		}
		slices.Sort(plugins)
		to = strings.Join(plugins, " ")
	}
	return match, to
}

func describeExpiry(s *apisix.SSL) string {
	expiry, ok := s.NotAfter()
	if !ok {
		return ""
	}
	return "certificate until " + expiry.UTC().Format(time.DateOnly)
}

func describeNodes(nodes []apisix.Node) string {
	const most = 3
	list := make([]string, 0, most+1)
	for i, n := range nodes {
		if i == most {
			list = append(list, fmt.Sprintf("… %d more", len(nodes)-most))
			break
		}
		list = append(list, fmt.Sprintf("%s:%d", n.Host, n.Port))
	}
	if len(list) == 0 {
		return "no endpoints"
	}
	return strings.Join(list, " ")
}
