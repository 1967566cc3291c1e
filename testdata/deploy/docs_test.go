package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

func TestLinksInTheDocumentationLead(t *testing.T) {
	for _, path := range documents(t) {
		for _, l := range link.FindAllStringSubmatch(read(t, path), -1) {
			target := path
			if l[1] != "" {
				target = filepath.Join(filepath.Dir(path), l[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if l[2] != "" && !hasAnchor(read(t, target), l[2][1:]) {
				t.Errorf("%s: %s has no heading for %s", path, target, l[2])
			}
		}
	}
}

func hasAnchor(text, anchor string) bool {
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(strings.ToLower(h[1]), " ", "-") == anchor {
			return true
		}
	}
	return false
}

var flagName = regexp.MustCompile("`(?:[^`]* )?(--[a-z0-9-]+)")

func TestFlagsInTheDocumentationExist(t *testing.T) {
	known := ""
	for _, command := range []string{"run", "apisix-config", "translate", "explain", "etcd", "wait", "request", "iptables", "precheck", "dump"} {
		out, err := exec.CommandContext(t.Context(), meshbridge(t), command, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		known += string(out)
	}
	for _, path := range documents(t) {
		for line := range strings.Lines(read(t, path)) {
			if cells := strings.Split(line, "|"); len(cells) > 3 && strings.Contains(path, "from-") {
				line = strings.Join(cells[2:], "|") // the first column has the flags of others
			}
			for _, f := range flagName.FindAllStringSubmatch(line, -1) {
				if !strings.Contains(known, f[1]+" ") {
					t.Errorf("%s: there is no flag %s", path, f[1])
				}
			}
		}
	}
}

func TestCommandsInTheDocumentationAreAccepted(t *testing.T) {
	for _, path := range documents(t) {
		for line := range strings.Lines(read(t, path)) {
			args := strings.Fields(line)
			if len(args) < 2 || args[0] != "meshbridge" {
				continue
			}
			switch args[1] {
			case "run", "apisix-config":
				args = append(args, "--print-config")
			case "translate":
			default:
				continue // needs a running bridge
			}
			if out, err := exec.CommandContext(t.Context(), meshbridge(t), args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", path, line, err, out)
			}
		}
	}
}

// documents are the pages that are about deployment.
func documents(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, name := range []string{"quickstart", "operations", "security", "virtual-machines", "from-apisix-mesh-agent", "from-amesh"} {
		paths = append(paths, "../../docs/"+name+".md")
	}
	return paths
}
