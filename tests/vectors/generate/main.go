// Command generate writes the test vectors. Run it from the root of the repository: go run ./tests/vectors/generate
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/tests/vectors"
)

func main() {
	dir := flag.String("dir", "tests/vectors", "folder to write to")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	for _, f := range vectors.Generate() {
		data, err := f.Bytes()
		if err != nil {
			return fmt.Errorf("encoding %s: %w", f.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}
