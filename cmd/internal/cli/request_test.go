package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequestPrintsTheAnswerAlone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/forbidden":
			http.Error(w, "not for you", http.StatusForbidden)
		default:
			fmt.Fprintf(w, "%s %s %s\n", r.Method, r.URL, body)
		}
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args         []string
		agent        bool
		code         int
		stdout, errs string
	}{
		{[]string{"GET", "config_dump?mask=bootstrap", "--port", port}, false, exitOK, "GET /config_dump?mask=bootstrap \n", ""},
		{[]string{"--debug-port=" + port, "POST", "/drain", "body"}, true, exitOK, "POST /drain body\n", ""},
		{[]string{"GET", "missing", "--port", port}, false, exitError, "", "HTTP 404"},
		// Istio's agent takes it for an answer like any other.
		{[]string{"GET", "missing", "--port", port, "--unknown"}, true, exitOK, "404 page not found\n", ""},
		{[]string{"GET", "forbidden", "--port", port}, false, exitError, "", "HTTP 403: not for you"},
		{[]string{"GET", "forbidden", "--port", port}, true, exitAgent, "", "HTTP 403: not for you"},
		{[]string{"GET"}, false, exitUsage, "", "arg"},
		{[]string{"GET", "x", "--unknown"}, false, exitUsage, "", "--unknown"},
		{[]string{"G T", "x", "--port", port}, false, exitUsage, "", "method"},
	} {
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, environ: func() []string { return nil }, isPilotAgent: c.agent}
		code := execute(t.Context(), a, append([]string{"request"}, c.args...))
		if code != c.code || out.String() != c.stdout || !strings.Contains(errs.String(), c.errs) {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", c.args, code, out.String(), errs.String())
		}
	}
}
