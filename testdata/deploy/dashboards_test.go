package deploy

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// alertRules is Prometheus' format of rule files.
type alertRules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			For         string            `json:"for,omitempty"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

func alerts(t *testing.T) alertRules {
	t.Helper()
	var rules alertRules
	if err := yaml.UnmarshalStrict([]byte(read(t, deployed+"/dashboards/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

var metricName = regexp.MustCompile(`\b(meshbridge|apisix)_[a-z_]+`)

func TestMetricsOfDashboardsAndAlertsExist(t *testing.T) {
	known := metricsInSource(t)
	if len(known) < 30 {
		t.Fatalf("only %d metrics found in the source: %v", len(known), known)
	}
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
		Templating struct {
			List []struct{ Query any } `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal([]byte(read(t, deployed+"/dashboards/meshbridge.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	checked := 0
	check := func(where, expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			checked++
			// Among merged metrics, those that any Go program has are told apart by the prefix.
			if any := strings.TrimPrefix(name, "meshbridge_"); strings.HasPrefix(any, "process_") || strings.HasPrefix(any, "go_") {
				continue
			}
			if base := strings.TrimSuffix(name, "_bucket"); !known[name] && !known[base] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			check("panel "+p.Title, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		query, err := json.Marshal(v.Query)
		if err != nil {
			t.Fatal(err)
		}
		check("variable", string(query))
	}
	for _, group := range alerts(t).Groups {
		for _, rule := range group.Rules {
			check("alert "+rule.Alert, rule.Expr)
			if rule.Annotations["summary"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("alert %s has no summary or severity", rule.Alert)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d names were checked", checked)
	}
}

func TestEveryAlertIsInTheRunbook(t *testing.T) {
	runbook := read(t, "../../docs/operations.md")
	for _, group := range alerts(t).Groups {
		for _, rule := range group.Rules {
			if !strings.Contains(runbook, "\n### "+rule.Alert+"\n") {
				t.Errorf("docs/operations.md has no entry for %s", rule.Alert)
			}
		}
	}
}

// metricsInSource collects the names that the program's source makes metrics of: string literals, alone or
// behind a prefix, and the constants of Namespace and Subsystem. It may find more than there are.
func metricsInSource(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		collectMetrics(file, known)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func collectMetrics(file *ast.File, known map[string]bool) {
	var literals, prefixes []string
	namespaced := false
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				literals = append(literals, text)
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Namespace" {
				namespaced = true
			}
		}
		return true
	})
	for _, text := range literals {
		if strings.HasPrefix(text, "meshbridge_") {
			if strings.HasSuffix(text, "_") {
				prefixes = append(prefixes, text)
			} else {
				known[text] = true
			}
		}
	}
	if namespaced {
		prefixes = append(prefixes, "meshbridge_"+file.Name.Name+"_")
	}
	for _, prefix := range prefixes {
		for _, text := range literals {
			known[prefix+text] = true
		}
	}
}
