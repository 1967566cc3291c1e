package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meshbridge/cmd/internal/logscope"
)

func TestLogsAreForProgramsWhereNobodyReads(t *testing.T) {
	for format, want := range map[string]string{"auto": `"msg":"hello"`, "json": `"msg":"hello"`, "text": "msg=hello"} {
		var out bytes.Buffer
		log, err := (&logOptions{level: "info", format: format}).logger(&out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hello")
		if !strings.Contains(out.String(), want) {
			t.Errorf("--log-format %s on what is no terminal: %s", format, out.String())
		}
	}
}

func TestTheLogSaysWhatIsSetAndNoSecrets(t *testing.T) {
	cmd, _ := runCommand(&app{})
	for name, value := range map[string]string{
		"xds": "grpc://127.0.0.1:15010", "node-metadata": `{"TOKEN":"hunter2"}`, "root-password-file": "/secrets/root",
		"allow-unenforced": "a,b", "dns-servers": "http://user:hunter2@127.0.0.1",
	} {
		if err := cmd.Flags().Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("starting", effective(cmd.Flags()))
	got := out.String()
	for _, want := range []string{"settings.xds=grpc://127.0.0.1:15010", "settings.node_metadata=[redacted]", "settings.root_password_file=/secrets/root", "settings.allow_unenforced=[a,b]"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") || strings.Contains(got, "settings.prefix") {
		t.Errorf("a secret, or a default, in %s", got)
	}
}

func TestGRPCIsHeardButNotOften(t *testing.T) {
	var out bytes.Buffer
	now := time.Now()
	log := slog.New(logscope.NewHandler(slog.NewTextHandler(&out, logscope.Everything()), slog.LevelInfo))
	l := &grpcLogger{log: log, now: func() time.Time { return now }}
	l.Infof("chat %d", 1)
	l.Warningf("createTransport failed: %s\n", "refused")
	l.Error("again")
	l.Warningln("and again")
	now = now.Add(grpcInterval)
	l.Warning("once more")
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `text="createTransport failed: refused" suppressed=0`) ||
		!strings.Contains(got, `text="once more" suppressed=2`) || strings.Contains(got, "chat") {
		t.Errorf("the log is:\n%s", got)
	}
}

func TestVersionsForPrograms(t *testing.T) {
	code, out, errs := command(t, nil, "version", "-o", "json")
	var b buildInfo
	if err := json.Unmarshal([]byte(out), &b); err != nil || code != exitOK || b.Version != "test" || b.Go == "" || b.APISIX == "" {
		t.Errorf("exit code %d, %+v (%v): %s", code, b, err, errs)
	}
	if code, out, _ := command(t, nil, "version"); code != exitOK || out != "test\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
	if code, _, _ := command(t, nil, "version", "-o", "xml"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
