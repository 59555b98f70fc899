package pre_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestConstantTime reads the sources of the package: secret scalars can only meet the arithmetic that is imported, so what
// is not constant-time must not be.
func TestConstantTime(t *testing.T) {
	allowed := map[string]bool{
		"golang.org/x/crypto/argon2": true, // behind the oblivious function, on what nobody else can compute
		"filippo.io/bigmod":          true, "filippo.io/nistec": true, "github.com/cloudflare/circl/kem/xwing": true,
		"github.com/sallyport/sallyport/policies":                  true,
		"github.com/sallyport/sallyport/policies/redact":           true,
		"github.com/sallyport/sallyport/vault/pre/internal/secret": true, "github.com/sallyport/sallyport/vault/pre/internal/xwing": true,
	}
	forbidden := map[string]bool{"math/big": true, "crypto/elliptic": true, "crypto/ecdsa": true, "math/rand": true, "math/rand/v2": true, "unsafe": true, "net": true, "os": true, "time": true}
	var files int
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if forbidden[name] || strings.Contains(name, ".") && !allowed[name] {
				t.Errorf("%s imports %s", path, name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.HasSuffix(s.Sel.Name, "VarTime") {
				t.Errorf("%s uses %s", path, s.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d source files were read", files)
	}
}
