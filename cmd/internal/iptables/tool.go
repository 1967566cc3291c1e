package iptables

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Variants of iptables: the kernel has two sets of tables, and rules in one are not seen in the other.
const (
	Legacy = "legacy"
	NFT    = "nft"
)

// Tool is the variant of the iptables programs that is used in this network namespace.
type Tool struct {
	// program is iptables or one of its names with a suffix; ip6tables goes with it.
	four, six string
	legacy    bool
	dry       io.Writer // where input is written to instead of to iptables-restore; nil outside PrintRemoval
	log       *slog.Logger
}

// Detect chooses the programs as istio-iptables does: the legacy ones where they are there and have rules,
// then those for nftables, then whatever is called iptables. Variant forces one. For IPv6 the choice is made
// by the same rules.
func Detect(ctx context.Context, variant string, ipv6 bool, log *slog.Logger) (*Tool, error) {
	t := &Tool{log: log}
	var err error
	if t.four, t.legacy, err = choose(ctx, "iptables", variant); err != nil {
		return nil, err
	}
	if ipv6 {
		if t.six, _, err = choose(ctx, "ip6tables", variant); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func choose(ctx context.Context, name, variant string) (program string, legacy bool, err error) {
	switch variant {
	case Legacy, NFT:
		err := usable(ctx, name+"-"+variant)
		return name + "-" + variant, variant == Legacy, err
	case "":
	default:
		return "", false, fmt.Errorf("%q is no variant of iptables: want %s or %s", variant, Legacy, NFT)
	}
	errLegacy := usable(ctx, name+"-"+Legacy)
	if errLegacy == nil {
		if saved, err := run(ctx, "", name+"-"+Legacy+"-save"); err == nil && strings.Contains(saved, "\n*") {
			return name + "-" + Legacy, true, nil
		}
	}
	errNFT := usable(ctx, name+"-"+NFT)
	if errNFT == nil {
		return name + "-" + NFT, false, nil
	}
	if err := usable(ctx, name); err != nil {
		return "", false, fmt.Errorf("no usable iptables: %w", errors.Join(errNFT, errLegacy, err))
	}
	version, err := run(ctx, "", name, "--version")
	return name, !strings.Contains(version, "nf_tables"), err
}

// usable tells whether the kernel has what the program is for: a rule that matches no packet can be added.
func usable(ctx context.Context, program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return err
	}
	probe := []string{"-t", tableNAT, "-A", "INPUT", "-p", "255", "-j", "RETURN"}
	if _, err := run(ctx, "", program, probe...); err != nil {
		return err
	}
	probe[2] = "-D"
	_, err := run(ctx, "", program, probe...)
	return err
}

// Apply brings the rules into force, in place of what an earlier call, or Istio, has made.
func (t *Tool) Apply(ctx context.Context, v4, v6 Rules) error {
	return t.change(ctx, v4, v6, state.replace)
}

// PrintRemoval writes what Remove would hand to iptables-restore and ip6tables-restore.
func (t *Tool) PrintRemoval(ctx context.Context, w io.Writer, v4, v6 Rules) error {
	dry := *t
	dry.dry = w
	return dry.Remove(ctx, v4, v6)
}

// Remove takes away what Apply, or Istio, has made: all chains with Istio's prefix and what jumps there, and
// those rules in the kernel's chains that are among the rules.
func (t *Tool) Remove(ctx context.Context, v4, v6 Rules) error {
	return t.change(ctx, v4, v6, state.remove)
}

func (t *Tool) change(ctx context.Context, v4, v6 Rules, input func(state, Rules) string) error {
	for _, family := range []struct {
		program string
		rules   Rules
	}{{t.four, v4}, {t.six, v6}} {
		if family.program == "" {
			continue
		}
		saved, err := run(ctx, "", family.program+"-save")
		if err != nil {
			return err
		}
		text := input(parseState(saved), family.rules)
		if t.dry != nil {
			if _, err := fmt.Fprintf(t.dry, "# %s-restore --noflush\n%s", family.program, text); err != nil {
				return err
			}
			continue
		}
		if text == "" {
			continue
		}
		args := []string{"--noflush"}
		if t.legacy {
			args = append(args, "--wait=30")
		}
		if _, err := run(ctx, text, family.program+"-restore", args...); err != nil {
			return explain(err, text)
		}
		t.log.InfoContext(ctx, "rules changed", slog.String("program", family.program), slog.Int("rules", len(family.rules)))
		t.log.DebugContext(ctx, "input", slog.String("program", family.program+"-restore"), slog.String("text", text))
	}
	return nil
}

// run returns what a program writes, and what it complains about as an error.
func run(ctx context.Context, input, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, cmp.Or(strings.TrimSpace(complaint.String()), "no reason given"))
	}
	return out.String(), nil
}

// lineNumber is how iptables-restore says where it stopped: "line 3 failed", "Error occurred at line: 3",
// "line 3: RULE_APPEND failed".
var lineNumber = regexp.MustCompile(`line:? (\d+)`)

// explain adds the line of the input that an error is about, and what is likely to be missing.
func explain(err error, input string) error {
	m := lineNumber.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	lines := strings.Split(input, "\n")
	n, errNumber := strconv.Atoi(m[1])
	if errNumber != nil || n < 1 || n > len(lines) {
		return err
	}
	line, hint := lines[n-1], ""
	if line == "COMMIT" {
		hint = " (the kernel refused the table as a whole: it lacks a match or target that one of the rules needs)"
	}
	for _, need := range [][2]string{
		{"-m owner", "xt_owner"}, {"-m conntrack", "xt_conntrack"}, {"-m multiport", "xt_multiport"}, {"-j CT", "xt_CT"}, {"-j REDIRECT", "xt_REDIRECT"},
	} {
		if strings.Contains(line, need[0]) {
			hint = " (it needs the kernel's module " + need[1] + ")"
		}
	}
	return fmt.Errorf("line %d, %q%s: %w", n, line, hint, err)
}
