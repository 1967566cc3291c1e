package harness

import (
	"context"
	"io"
	"net/http"
	"testing"
)

// Ask sends a request to the bridge's admin port as istioctl does through a forwarded port, and returns
// the answer, which istioctl takes only with status 200.
func (b *Bridge) Ask(t testing.TB, method, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+b.Admin+"/"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s /%s: %s: %v\n%s", method, path, response.Status, err, body)
	}
	return string(body)
}
