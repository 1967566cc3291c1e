package extend_test

import (
	"strings"
	"testing"
)

// The examples of the documentation are loaded without a problem, and each selects something.
func TestTheExamplesOfTheDocumentation(t *testing.T) {
	var files []string
	for _, block := range strings.Split(readDoc(t, "extensions.md"), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if strings.Contains(text, "kind: ") {
			files = append(files, text)
		}
	}
	if len(files) < 3 {
		t.Fatalf("%d examples", len(files))
	}
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), load(t, config(), nil, files...))
	for _, code := range w.codes() {
		// Some routes of the recording set response headers of their own.
		if !strings.HasPrefix(code, "extension_refused: RouteConfiguration") {
			t.Error(code)
		}
	}
	for _, key := range []string{"consumers/jack", "global_rules/metrics", "consumer_groups/gold", "plugin_metadata/http-logger"} {
		if w.objects[key] == nil {
			t.Errorf("no %s", key)
		}
	}
}
