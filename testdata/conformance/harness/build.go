package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries are the paths of the programs that the tests run.
type Binaries struct {
	Meshbridge, Istiod string
	// Workload gets an identity from istiod; see its own documentation.
	Workload string
}

// Build builds the programs into dir, from the test's working directory,
// which is the root of this module. The environment variables MESHBRIDGE and
// ISTIOD name programs that are built already.
func Build(ctx context.Context, dir string) (Binaries, error) {
	bridge, err := build(ctx, os.Getenv("MESHBRIDGE"), filepath.Join("..", ".."), "./cmd/meshbridge", filepath.Join(dir, "meshbridge"))
	if err != nil {
		return Binaries{}, err
	}
	istiod, err := build(ctx, os.Getenv("ISTIOD"), ".", "./cmd/istiod", filepath.Join(dir, "istiod"))
	if err != nil {
		return Binaries{}, err
	}
	workload, err := BuildFrom(ctx, filepath.Join("..", ".."), "./testdata/workload", dir)
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{Meshbridge: bridge, Istiod: istiod, Workload: workload}, nil
}

// BuildFrom builds a package of a module into dir, and returns the program's path.
func BuildFrom(ctx context.Context, module, pkg, dir string) (string, error) {
	return build(ctx, "", module, pkg, filepath.Join(dir, filepath.Base(pkg)))
}

func build(ctx context.Context, have, module, pkg, to string) (string, error) {
	if have != "" {
		return have, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, pkg)
	cmd.Dir = module
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w\n%s", pkg, module, err, output)
	}
	return to, nil
}
