package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Patch replaces a passage of a source file, which must be in it once.
type Patch struct{ File, From, To string } // the file by its path in the module

// overlay writes copies of the files that are patched to a folder, and a file that has the go command build with them. It returns the arguments for the go command.
func overlay(module, dir string, patches ...Patch) ([]string, error) {
	sources, replace := map[string]string{}, map[string]string{}
	for _, p := range patches {
		text, had := sources[p.File]
		if !had {
			data, err := os.ReadFile(filepath.Join(module, p.File))
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		if n := strings.Count(text, p.From); n != 1 {
			return nil, fmt.Errorf("%s has changed: what is to be replaced is in it %d times:\n%s", p.File, n, p.From)
		}
		sources[p.File] = strings.Replace(text, p.From, p.To, 1)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for file, text := range sources {
		name := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, err
		}
		replace[filepath.Join(module, file)] = name
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "overlay.json")
	return []string{"-overlay", name}, os.WriteFile(name, list, 0o600)
}

// BuildVault builds the vault out of patched sources, which are not touched, in a folder of its own, and returns the other commands with it.
func BuildVault(ctx context.Context, module, dir string, others Binaries, patches ...Patch) (Binaries, error) {
	args, err := overlay(module, dir, patches...)
	if err != nil {
		return others, err
	}
	others.Vault = filepath.Join(dir, "sallyport-vault")
	return others, build(ctx, module, append(args, "-o", others.Vault, "./vault/cmd/sallyport-vault")...)
}
