// Command gosec runs gosec (github.com/securego/gosec) over the product and compares what it finds with explained.txt, where each kind of
// finding in each file has its reason. A finding that is not explained there fails, and so does an explanation of nothing, so that the
// table says what is so and no more.
//
//	go run ./tests/gosec /path/to/gosec
//
// A line of explained.txt is: rule, file, how often, and why that is no weakness. Rules that say nothing about this program at all stand
// there once, with * as the file.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./tests/gosec /path/to/gosec")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "tests/gosec:", err)
		os.Exit(1)
	}
}

// A kind is one rule in one file.
type kind struct{ rule, file string }

// A finding is what gosec says.
type finding struct {
	Rule    string `json:"rule_id"`
	File    string `json:"file"`
	Line    string `json:"line"`
	Details string `json:"details"`
}

func run(gosec string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	why, err := explained(filepath.Join(root, "tests", "gosec", "explained.txt"))
	if err != nil {
		return err
	}
	found, err := findings(gosec, root)
	if err != nil {
		return err
	}
	bad := 0
	for k, list := range found {
		if _, everywhere := why[kind{k.rule, "*"}]; everywhere || len(list) == why[k] {
			continue
		}
		bad++
		fmt.Printf("%s %s: %d, explained are %d\n", k.rule, k.file, len(list), why[k])
		for _, f := range list {
			fmt.Printf("    line %s: %s\n", f.Line, f.Details)
		}
	}
	for k := range why {
		if k.file != "*" && len(found[k]) == 0 {
			bad++
			fmt.Printf("%s %s is explained and no longer found\n", k.rule, k.file)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d kinds of findings differ from tests/gosec/explained.txt: mend them, or say there why they are none", bad)
	}
	fmt.Printf("gosec: every finding is explained (%d kinds)\n", len(why))
	return nil
}

// findings runs gosec. Tests are no part of the product.
func findings(gosec, root string) (map[kind][]finding, error) {
	c := exec.Command(gosec, "-quiet", "-fmt", "json", "-exclude-dir=tests", "./...")
	c.Dir, c.Stderr = root, os.Stderr
	out, err := c.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1: it found something
		return nil, fmt.Errorf("running gosec: %w", err)
	}
	var report struct {
		Issues []finding
		Stats  struct {
			Files int `json:"files"`
		}
		Errors map[string]any `json:"Golang errors"`
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &report); err != nil {
			return nil, fmt.Errorf("reading gosec's report: %w", err)
		}
	}
	if report.Stats.Files < 50 || len(report.Errors) > 0 {
		return nil, fmt.Errorf("gosec looked at %d files only, with errors %v", report.Stats.Files, report.Errors)
	}
	found := map[kind][]finding{}
	for _, f := range report.Issues {
		name, err := filepath.Rel(root, f.File)
		if err != nil || !filepath.IsLocal(name) {
			name = "(made by cgo)" // in the build cache, from pkcs11/internal/cryptoki
		}
		k := kind{f.Rule, filepath.ToSlash(name)}
		found[k] = append(found[k], f)
	}
	return found, nil
}

// explained reads the table.
func explained(path string) (map[kind]int, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out := map[kind]int{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 6 || slices.Contains(words[:2], "") {
			return nil, fmt.Errorf("%s: %q: rule, file, number, and a reason of some words", path, lines.Text())
		}
		n, err := strconv.Atoi(words[2])
		if err != nil || n < 1 && words[1] != "*" {
			return nil, fmt.Errorf("%s: %q: the third word is how often", path, lines.Text())
		}
		k := kind{words[0], words[1]}
		if _, twice := out[k]; twice {
			return nil, fmt.Errorf("%s: %s %s stands there twice", path, k.rule, k.file)
		}
		out[k] = n
	}
	return out, nil
}
