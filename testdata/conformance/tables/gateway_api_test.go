package tables

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestIstiosGatewayAPIFixturesHold gives the fixtures of Istio's test of its Gateway API conversion to a
// discovery server, and compares the translation of what their proxies are sent with Envoy.
func TestIstiosGatewayAPIFixturesHold(t *testing.T) {
	dir := filepath.Join(istioModule(t), "pilot/pkg/config/kube/gateway")
	var source bytes.Buffer
	source.WriteString("package gateway_test\n\n")
	surroundings(t, filepath.Join(dir, "conversion_test.go"), &source)
	source.WriteString(`
func TestFixtures(t *testing.T) {
	gatewayapi.Record(t, os.Getenv("FIXTURES"), os.Getenv("RECORDINGS"), gatewayapi.Surroundings{Services: services, Objects: objects})
}
`)
	binary := compile(t, "gateway", map[string][]byte{"gateway_test.go": source.Bytes()})
	recordings := t.TempDir()
	run(t, dir, []string{"FIXTURES=" + filepath.Join(dir, "testdata"), "RECORDINGS=" + recordings}, binary)
	t.Log(compareRecordings(t, "./translate", "TestGatewayAPIFixtures", recordings))
}

// surroundings writes what Istio's test has next to its fixtures: the variables of its source, and what
// these are made of.
func surroundings(t *testing.T, file string, out *bytes.Buffer) {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	variables := []string{"ports", "inferencePoolPorts", "services", "rsaCertPEM", "rsaKeyPEM", "objects"}
	var kept []ast.Node
	used := map[string]bool{}
	for _, d := range parsed.Decls {
		var keep bool
		switch d := d.(type) {
		case *ast.FuncDecl:
			keep = d.Name.Name == "firstValue"
		case *ast.GenDecl:
			keep = d.Tok == token.VAR && slices.ContainsFunc(d.Specs, func(s ast.Spec) bool {
				return slices.Contains(variables, s.(*ast.ValueSpec).Names[0].Name)
			})
		}
		if !keep {
			continue
		}
		kept = append(kept, d)
		ast.Inspect(d, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					used[x.Name] = true
				}
			}
			return true
		})
	}
	out.WriteString("import (\n\t\"os\"\n\t\"testing\"\n\t\"meshbridge/testdata/conformance/gatewayapi\"\n\t. \"istio.io/istio/pilot/pkg/config/kube/gateway\"\n")
	for _, spec := range parsed.Imports {
		full, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		name := path.Base(full)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if used[name] {
			out.WriteString("\t" + name + " " + spec.Path.Value + "\n")
		}
	}
	out.WriteString(")\n")
	for _, d := range kept {
		out.WriteString("\n")
		if err := printer.Fprint(out, files, d); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n")
	}
}
