package deploy

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// instructions are those of a Dockerfile, by stage, with continued lines joined.
func instructions(t *testing.T, name string) (stages [][]string) {
	t.Helper()
	stages = [][]string{nil}
	text := strings.ReplaceAll(read(t, filepath.Join(deployed, "docker", name)), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "FROM ") {
			stages = append(stages, nil)
		}
		last := len(stages) - 1
		stages[last] = append(stages[last], line)
	}
	return stages
}

func runs(stage []string) (commands []string) {
	for _, i := range stage {
		if command, ok := strings.CutPrefix(i, "RUN "); ok {
			commands = append(commands, command)
		}
	}
	return commands
}

func shell(t *testing.T, dir, script string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// No container engine is needed: what the Dockerfiles run is run here, with a directory in place of the root.
func TestDockerfiles(t *testing.T) {
	for _, name := range []string{"Dockerfile", "Dockerfile.sidecar"} {
		t.Run(name, func(t *testing.T) {
			stages := instructions(t, name)
			if len(stages) != 3 {
				t.Fatalf("%d stages, want arguments, build and the image", len(stages))
			}
			build, image := runs(stages[1]), stages[2]
			root := t.TempDir()
			for _, command := range build {
				if command == "go mod download" {
					continue
				}
				shell(t, "../..", strings.ReplaceAll(command, "/out/", root+"/usr/local/bin/"),
					"TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH, "VERSION=v1.2.3-test")
			}
			program := filepath.Join(root, "usr/local/bin/meshbridge")
			if runtime.GOOS == "linux" {
				checkStatic(t, program)
			}
			if out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), "v1.2.3-test") {
				t.Errorf("meshbridge version: %v\n%s", err, out)
			}
			for _, want := range []string{
				"COPY --from=build /out/meshbridge /usr/local/bin/meshbridge", "USER 1337:1337", "WORKDIR /",
				"STOPSIGNAL SIGTERM", `ENTRYPOINT ["/usr/local/bin/meshbridge"]`,
			} {
				if !slices.Contains(image, want) {
					t.Errorf("the image lacks %s:\n%s", want, strings.Join(image, "\n"))
				}
			}
			if name == "Dockerfile.sidecar" {
				checkSidecarImage(t, stages, root)
			}
		})
	}
}

func checkStatic(t *testing.T, program string) {
	t.Helper()
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic linker, which distroless/static has not")
		}
	}
}

func checkSidecarImage(t *testing.T, stages [][]string, root string) {
	t.Helper()
	if !slices.Contains(stages[0], "ARG APISIX_DIGEST") || stages[2][0] != "FROM apache/apisix@${APISIX_DIGEST}" {
		t.Error("APISIX's image is not named by a digest that the build has to give")
	}
	conf := filepath.Join(root, "usr/local/apisix/conf/config.yaml")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range runs(stages[2]) {
		if strings.HasPrefix(command, "apt-get ") {
			continue // the system that the tests run on is not theirs to change
		}
		command = strings.ReplaceAll(command, " /usr/", " "+root+"/usr/")
		if os.Getuid() != 0 {
			command = strings.ReplaceAll(command, "1337:1337", "$(id -u):$(id -g)")
		}
		shell(t, root, command)
	}
	agent := filepath.Join(root, "usr/local/bin/pilot-agent")
	if out, err := exec.CommandContext(t.Context(), agent, "version").CombinedOutput(); err != nil {
		t.Errorf("pilot-agent: %v\n%s", err, out)
	}
	info, err := os.Stat(conf)
	if err != nil {
		t.Fatal(err)
	}
	want := uint32(1337)
	if uid := os.Getuid(); uid != 0 {
		want = uint32(uid)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != want {
		t.Errorf("APISIX's configuration belongs to %d, and is to be written by %d", owner, want)
	}
}
