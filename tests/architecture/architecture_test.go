package architecture

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

var update = flag.Bool("update", false, "write the fuzz targets found into fuzz.txt")

// goFile is one parsed source file.
type goFile struct {
	path, dir string
	test      bool
	imports   []string // without the module's prefix
	syntax    *ast.File
}

// tree is the source of a module.
type tree struct {
	fsys  fs.FS
	files []goFile
	texts []string // paths of all files that are not Go
	byDir map[string][]int
}

func readTree(fsys fs.FS) (*tree, error) {
	t := &tree{fsys: fsys, byDir: map[string][]int{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" || d.Name() == "testdata" || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || name == ".git" { // a file in a work tree
			return nil
		}
		if path.Ext(name) != ".go" {
			t.texts = append(t.texts, name)
			return nil
		}
		source, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		f := goFile{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), syntax: syntax}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, strings.TrimPrefix(imported, module+"/"))
		}
		t.byDir[f.dir] = append(t.byDir[f.dir], len(t.files))
		t.files = append(t.files, f)
		return nil
	})
	return t, err
}

func match(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == below || strings.HasPrefix(name, below+"/")
	}
	return name == pattern
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

// inModule reports whether an import path, cut as in goFile, is of this module: a top folder begins it.
func inModule(imported string) bool {
	top, _, _ := strings.Cut(imported, "/")
	return slices.Contains(topFolders, top)
}

func (t *tree) checkGraph() (bad []string) {
	for _, f := range t.files {
		if f.test {
			continue
		}
		var found *rule
		for i := range graph {
			if match(graph[i].from, f.dir) && (found == nil || len(graph[i].from) > len(found.from)) {
				found = &graph[i]
			}
		}
		if found == nil {
			bad = append(bad, fmt.Sprintf("%s: the graph has no rule for package %s", f.path, f.dir))
			continue
		}
		for _, imported := range f.imports {
			if inModule(imported) && !matchAny(found.to, imported) {
				bad = append(bad, fmt.Sprintf("%s imports %s, which %s may not", f.path, imported, found.from))
			}
		}
	}
	return bad
}

func (w *wall) stops(dir string) bool {
	if w.only != nil {
		return !matchAny(w.only, dir)
	}
	return matchAny(w.never, dir)
}

func (t *tree) checkWalls() (bad []string) {
	for _, f := range t.files {
		for _, w := range walls {
			if f.test && !w.tests || !w.stops(f.dir) {
				continue
			}
			for _, imported := range f.imports {
				if matchAny(w.imports, imported) {
					bad = append(bad, fmt.Sprintf("%s imports %q: %s", f.path, imported, w.why))
				}
			}
		}
	}
	return bad
}

// checkReach follows imports from package to package.
func (t *tree) checkReach() (bad []string) {
	imports := map[string]map[string]bool{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		if imports[f.dir] == nil {
			imports[f.dir] = map[string]bool{}
		}
		for _, imported := range f.imports {
			if inModule(imported) {
				imports[f.dir][imported] = true
			}
		}
	}
	for _, start := range slices.Sorted(maps.Keys(imports)) {
		for _, w := range reach {
			if !w.stops(start) {
				continue
			}
			from := map[string]string{start: ""}
			for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
				at := queue[0]
				if at != start && matchAny(w.imports, at) {
					way := at
					for p := from[at]; p != ""; p = from[p] {
						way = p + " -> " + way
					}
					bad = append(bad, fmt.Sprintf("%s: %s", way, w.why))
					break
				}
				for _, next := range slices.Sorted(maps.Keys(imports[at])) {
					if _, seen := from[next]; !seen {
						from[next] = at
						queue = append(queue, next)
					}
				}
			}
		}
	}
	return bad
}

func (t *tree) checkCalls() (bad []string) {
	for _, f := range t.files {
		if f.test {
			continue
		}
		names := map[string]string{} // local name of an import to its path
		for _, spec := range f.syntax.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			name := path.Base(imported)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = imported
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if in, ok := forbiddenNames[s.Sel.Name]; ok && matchAny(in, f.dir) {
				bad = append(bad, fmt.Sprintf("%s uses %s, which is variable-time", f.path, s.Sel.Name))
			}
			if id, ok := s.X.(*ast.Ident); ok {
				for _, c := range forbiddenCalls {
					if names[id.Name] == c.path && s.Sel.Name == c.name && matchAny(c.in, f.dir) {
						bad = append(bad, fmt.Sprintf("%s uses %s.%s: %s", f.path, c.path, c.name, c.why))
					}
				}
			}
			return true
		})
	}
	return bad
}

// checkComments wants a comment worth reading on every package.
func (t *tree) checkComments() (bad []string) {
	for _, dir := range slices.Sorted(maps.Keys(t.byDir)) {
		longest, name := 0, ""
		testsOnly := true
		for _, i := range t.byDir[dir] {
			f := &t.files[i]
			if f.test {
				continue
			}
			testsOnly, name = false, f.syntax.Name.Name
			text := f.syntax.Doc.Text()
			start := "Package " + name + " "
			if name == "main" {
				start = "Command " + path.Base(dir) + " "
			}
			if strings.HasPrefix(text, start) {
				longest = max(longest, len(text))
			}
		}
		if testsOnly {
			bad = append(bad, fmt.Sprintf("%s: a package of tests alone has nowhere to say what it is for", dir))
		} else if longest < 100 {
			bad = append(bad, fmt.Sprintf("%s: no package comment worth reading on package %s (%d characters)", dir, name, longest))
		}
	}
	return bad
}

func (t *tree) checkTop() (bad []string) {
	entries, err := fs.ReadDir(t.fsys, ".")
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		allowed := topFiles
		if e.IsDir() {
			allowed = topFolders
		}
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			bad = append(bad, fmt.Sprintf("%s: the top level is fixed", e.Name()))
		}
	}
	for _, want := range slices.Concat(topFolders, topFiles) {
		if !slices.Contains(names, want) {
			bad = append(bad, want+" is missing at the top level")
		}
	}
	for _, folder := range topFolders {
		if readme, err := fs.ReadFile(t.fsys, folder+"/README.md"); err != nil || len(bytes.TrimSpace(readme)) < 200 {
			bad = append(bad, folder+"/README.md is missing or says nothing")
		}
	}
	return bad
}

var doubleName = regexp.MustCompile(`^(?:[Ff]ake|[Mm]ock|[Ss]tub|[Dd]ummy)(?:[A-Z].*)?$`)

// checkNames refuses packages for everything, and doubles of real parts outside test files.
func (t *tree) checkNames() (bad []string) {
	for _, f := range t.files {
		if slices.Contains(badPackages, path.Base(f.dir)) || slices.Contains(badPackages, f.syntax.Name.Name) {
			bad = append(bad, fmt.Sprintf("%s: a package named %s", f.path, f.syntax.Name.Name))
		}
		if f.test {
			continue
		}
		for _, d := range f.syntax.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				for _, s := range g.Specs {
					if name := s.(*ast.TypeSpec).Name.Name; doubleName.MatchString(name) {
						bad = append(bad, fmt.Sprintf("%s: type %s is a double; it belongs into a test file", f.path, name))
					}
				}
			}
		}
	}
	return bad
}

// exported counts the names a package exports, see maxExported.
func (t *tree) exported(dir string) int {
	count := 0
	for _, i := range t.byDir[dir] {
		f := &t.files[i]
		if f.test {
			continue
		}
		for _, d := range f.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.IsExported() {
					count++
				}
			case *ast.GenDecl:
				enumerations := map[string]bool{}
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							count++
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if !name.IsExported() {
								continue
							}
							if kind, ok := s.Type.(*ast.Ident); ok && d.Tok == token.CONST {
								if enumerations[kind.Name] {
									continue
								}
								enumerations[kind.Name] = true
							}
							count++
						}
					}
				}
			}
		}
	}
	return count
}

func (t *tree) checkExported() (bad []string) {
	for dir := range t.byDir {
		if strings.Contains("/"+dir+"/", "/internal/") {
			continue
		}
		if n, most := t.exported(dir), maxExported+moreExported[dir]; n > most {
			bad = append(bad, fmt.Sprintf("%s exports %d names, more than %d", dir, n, most))
		}
	}
	slices.Sort(bad)
	return bad
}

// The words are put together here so that this file does not hold them.
var (
	machinePath = regexp.MustCompile(`/` + `(?:work|farm|contract)/|/` + `tmp/(?:lab|contract|bash_jobs)`)
	unfinished  = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X)\b`)
)

func (t *tree) checkText() (bad []string) {
	check := func(name string) {
		data, err := fs.ReadFile(t.fsys, name)
		if err != nil {
			bad = append(bad, err.Error())
			return
		}
		if bytes.IndexByte(data, 0) >= 0 || path.Ext(name) == ".sum" || strings.HasPrefix(name, "tests/vectors/published/") && path.Ext(name) == ".json" {
			return
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if machinePath.Match(line) {
				bad = append(bad, fmt.Sprintf("%s:%d: a path of one machine", name, i+1))
			}
			if path.Ext(name) != ".json" && unfinished.Match(line) {
				bad = append(bad, fmt.Sprintf("%s:%d: unfinished by its own words", name, i+1))
			}
		}
	}
	for _, f := range t.files {
		check(f.path)
	}
	for _, name := range t.texts {
		check(name)
	}
	return bad
}

// checkSkips refuses tests that skip: where CI runs, a skip is a test that does not exist.
func (t *tree) checkSkips() (bad []string) {
	for _, f := range t.files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				return true
			}
			if id, ok := s.X.(*ast.Ident); ok && f.test && slices.Contains([]string{"t", "b", "f", "tb"}, id.Name) {
				bad = append(bad, f.path+": a test that skips")
			}
			return true
		})
	}
	return bad
}

// namedTest is a test that a document names. With dots behind it, it is how the names of several begin.
var namedTest = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]*(?:\.\.\.|…)?`)

// checkNamedTests refuses documents that name a test which there is not: what they promise nobody would attack.
func (t *tree) checkNamedTests() (bad []string) {
	var tests []string
	for _, f := range t.files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				tests = append(tests, fn.Name.Name)
			}
		}
	}
	for _, name := range t.texts {
		if path.Ext(name) != ".md" {
			continue
		}
		data, err := fs.ReadFile(t.fsys, name)
		if err != nil {
			bad = append(bad, err.Error())
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, test := range namedTest.FindAllString(line, -1) {
				begins := strings.TrimRight(test, ".…")
				if !slices.ContainsFunc(tests, func(is string) bool { return is == test || begins != test && strings.HasPrefix(is, begins) }) {
					bad = append(bad, fmt.Sprintf("%s:%d: there is no test %s", name, i+1, test))
				}
			}
		}
	}
	return bad
}

// The scanner of tests/run is told by a comment that a finding is none. silences is how such comments begin, explained how they are to be: which rule, and why.
var (
	silences  = regexp.MustCompile(`#nosec|gosec:disable`)
	explained = regexp.MustCompile(`^// #nosec G[0-9]{3}(?: G[0-9]{3})* -- \S.{9,}`)
)

// checkSilenced refuses comments that silence the scanner without a rule and a reason: then nobody has looked, or everything is silenced.
func (t *tree) checkSilenced() (bad []string) {
	for _, f := range t.files {
		for _, group := range f.syntax.Comments {
			for _, c := range group.List {
				if silences.MatchString(c.Text) && !explained.MatchString(c.Text) {
					bad = append(bad, fmt.Sprintf("%s: %q has no rule, or no reason", f.path, c.Text))
				}
			}
		}
	}
	return bad
}

// fuzzTargets lists "package target" lines.
func (t *tree) fuzzTargets() string {
	var out []string
	for _, f := range t.files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				out = append(out, f.dir+" "+fn.Name.Name+"\n")
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func TestArchitecture(t *testing.T) {
	tree, err := readTree(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.files) < 50 {
		t.Fatalf("only %d Go files found: this is not the tree", len(tree.files))
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			for _, line := range c.run(tree) {
				t.Error(line)
			}
		})
	}
	t.Run("fuzz targets", func(t *testing.T) {
		found := tree.fuzzTargets()
		if *update {
			if err := os.WriteFile("fuzz.txt", []byte(found), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		listed, err := os.ReadFile("fuzz.txt")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(found) {
			if !strings.Contains("\n"+string(listed), "\n"+line) {
				t.Errorf("fuzz target not in fuzz.txt: %s", line)
			}
		}
		for line := range strings.Lines(string(listed)) {
			if !strings.Contains("\n"+found, "\n"+line) {
				t.Errorf("fuzz target in fuzz.txt and nowhere else: %s", line)
			}
		}
	})
	for _, dir := range slices.Sorted(maps.Keys(tree.byDir)) {
		t.Logf("%3d exported names in %s", tree.exported(dir), dir)
	}
}

var checks = []struct {
	name string
	run  func(*tree) []string
}{
	{"graph", (*tree).checkGraph}, {"walls", (*tree).checkWalls}, {"reach", (*tree).checkReach}, {"calls", (*tree).checkCalls},
	{"package comments", (*tree).checkComments}, {"top level", (*tree).checkTop}, {"names", (*tree).checkNames},
	{"exported names", (*tree).checkExported}, {"text", (*tree).checkText}, {"skips", (*tree).checkSkips},
	{"named tests", (*tree).checkNamedTests}, {"silenced", (*tree).checkSilenced},
}

// synthetic is a small tree that keeps every rule.
func synthetic() fstest.MapFS {
	fsys := fstest.MapFS{"go.mod": {}, "go.sum": {}, "README.md": {}}
	for _, folder := range topFolders {
		fsys[folder+"/README.md"] = &fstest.MapFile{Data: []byte(strings.Repeat("what it is for ", 20))}
	}
	add := func(dir, text string) { fsys[dir+"/x.go"] = source(path.Base(dir), text) }
	add("policies", "import \"time\"\nvar _ time.Time")
	add("policies/problem", `import ("net/http"; _ "`+module+`/policies"); var _ http.Handler`)
	add("vault/pre", `import _ "`+module+`/policies"`)
	add("vault/api", `import _ "`+module+`/policies"`)
	add("vault", `import _ "`+module+`/vault/pre"`)
	add("vault/keylog", "")
	add("pkcs11", `import _ "`+module+`/pkcs11/internal/cryptoki"`)
	add("pkcs11/internal/cryptoki", `import _ "github.com/miekg/pkcs11"`)
	add("storefront", `import _ "`+module+`/vault/api"`)
	add("storefront/client", `import (_ "`+module+`/vault/api"; _ "`+module+`/vault/pre")`)
	fsys["tests/story/x_test.go"] = source("story", "func TestStory(t T) {}")
	fsys["tests/story/x.go"] = source("story", "")
	fsys["vault/cmd/sallyport-vault/main.go"] = source("main", `import (_ "`+module+`/pkcs11"; _ "`+module+`/vault")`)
	return fsys
}

// source is a file of a package with a comment.
func source(name, text string) *fstest.MapFile {
	comment := "Package " + name
	if name == "main" {
		comment = "Command sallyport-vault"
	}
	return &fstest.MapFile{Data: []byte("// " + comment + " " + strings.Repeat("is described here at length ", 6) + "\npackage " + name + "\n" + text + "\n")}
}

// The checks must be able to fail: each is shown a tree with one thing wrong.
func TestChecksFindViolations(t *testing.T) {
	for _, c := range checks {
		tree, err := readTree(synthetic())
		if err != nil {
			t.Fatal(err)
		}
		if bad := c.run(tree); len(bad) != 0 {
			t.Errorf("%s: complains of a good tree: %q", c.name, bad)
		}
	}
	many := "const (\nA Code = \"a\"\nB Code = \"b\"\n)\ntype Code string\n" // two names
	for i := range 94 {
		many += fmt.Sprintf("func F%d() {}\n", i)
	}
	for _, c := range []struct {
		check, name, path string
		file              *fstest.MapFile
		want              string // in the one complaint; "" means that there is none
	}{
		{"graph", "a package nobody planned", "storefront/extra/x.go", source("extra", ""), "no rule"},
		{"graph", "storefront imports the vault", "storefront/y.go", source("storefront", `import _ "`+module+`/vault"`), "may not"},
		{"graph", "storefront imports vault internals", "storefront/y.go", source("storefront", `import _ "`+module+`/vault/internal/ledger"`), "may not"},
		{"graph", "policies import the scheme", "policies/y.go", source("policies", `import _ "`+module+`/vault/pre"`), "may not"},
		{"graph", "SDK imports the storefront", "storefront/client/y.go", source("client", `import _ "`+module+`/storefront"`), "may not"},
		{"graph", "key-use log imports policies", "vault/keylog/y.go", source("keylog", `import _ "`+module+`/policies"`), "may not"},
		{"graph", "a test may", "storefront/y_test.go", source("storefront", `import _ "`+module+`/vault"`), ""},
		{"walls", "miekg elsewhere", "pkcs11/y.go", source("pkcs11", `import _ "github.com/miekg/pkcs11"`), "one door"},
		{"walls", "miekg in a test elsewhere", "hardware/y_test.go", source("hardware", `import _ "github.com/miekg/pkcs11"`), "one door"},
		{"walls", "cgo elsewhere", "vault/y.go", source("vault", `import "C"`), "written in C"},
		{"walls", "policies open files", "policies/y.go", source("policies", `import _ "os"`), "no I/O"},
		{"walls", "policies dial", "policies/y.go", source("policies", `import _ "net/http"`), "no I/O"},
		{"walls", "policies parse URLs", "policies/y.go", source("policies", `import _ "net/url"`), ""},
		{"walls", "big numbers in the scheme", "vault/pre/y.go", source("pre", `import _ "math/big"`), "variable-time"},
		{"walls", "big numbers below the scheme", "vault/pre/internal/z/y.go", source("z", `import _ "math/big"`), "variable-time"},
		{"walls", "the lenient decoder", "policies/y.go", source("policies", `import _ "encoding/json"`), "twice"},
		{"walls", "storefront needs cgo", "storefront/y.go", source("storefront", `import _ "`+module+`/pkcs11"`), "without cgo"},
		{"reach", "the vault's library reaches the token", "vault/pre/y.go", source("pre", `import _ "`+module+`/pkcs11"`), "cgo"},
		{"reach", "storefront reaches the vault round a corner", "vault/api/y.go", source("api", `import _ "`+module+`/vault/keylog"`), "never compiles"},
		{"calls", "policies read the clock", "policies/y.go", source("policies", "import \"time\"\nvar _ = time.Now()"), "clock"},
		{"calls", "policies read the clock under another name", "policies/y.go", source("policies", "import clock \"time\"\nvar f = clock.Now"), "clock"},
		{"calls", "a variable-time inverse", "vault/pre/y.go", source("pre", "func f(x, m N) { x.InverseVarTime(m) }"), "variable-time"},
		{"package comments", "none", "storefront/api/x.go", &fstest.MapFile{Data: []byte("package api\n")}, "no package comment"},
		{"package comments", "a short one", "storefront/api/x.go", &fstest.MapFile{Data: []byte("// Package api is api.\npackage api\n")}, "no package comment"},
		{"package comments", "of another package", "storefront/api/x.go", source("apis", ""), ""},
		{"package comments", "tests alone", "tests/e2e/x_test.go", source("e2e", ""), "tests alone"},
		{"top level", "another folder", "docs/x.md", &fstest.MapFile{}, "fixed"},
		{"top level", "another file", "Makefile", &fstest.MapFile{}, "fixed"},
		{"top level", "a dot file", ".gitignore", &fstest.MapFile{}, ""},
		{"top level", "an empty README", "vault/README.md", &fstest.MapFile{Data: []byte("# vault\n")}, "says nothing"},
		{"names", "a package for everything", "vault/internal/util/x.go", source("util", ""), "named util"},
		{"names", "a package of doubles", "vault/internal/token/mocks/x.go", source("mocks", ""), "named mocks"},
		{"names", "a double in production", "vault/y.go", source("vault", "type FakeToken struct{}"), "double"},
		{"names", "a double in a test", "vault/y_test.go", source("vault", "type fakeToken struct{}"), ""},
		{"exported names", "96", "storefront/api/x.go", source("api", many), ""},
		{"exported names", "97", "storefront/api/x.go", source("api", many+"var V int"), "exports 97"},
		{"text", "a machine's path", "vault/y.go", source("vault", `const p = "/`+`work/main"`), "one machine"},
		{"text", "a machine's path in a script", "tests/run", &fstest.MapFile{Data: []byte("cd /" + "tmp/lab\n")}, "one machine"},
		{"text", "unfinished", "vault/README.md", &fstest.MapFile{Data: []byte("TO" + "DO: " + strings.Repeat("write this ", 30))}, "unfinished"},
		{"skips", "a test that skips", "vault/y_test.go", source("vault", `func f(t T) { t.Skip("no token") }`), "skips"},
		{"silenced", "with a rule and a reason", "vault/y.go", source("vault", "var a = 1 // #nosec G404 -- spreads retries"), ""},
		{"silenced", "with two rules", "vault/y.go", source("vault", "var a = 1 // #nosec G404 G101 -- spreads retries"), ""},
		{"silenced", "without a reason", "vault/y.go", source("vault", "var a = 1 // #nosec G404"), "no reason"},
		{"silenced", "with an empty reason", "vault/y.go", source("vault", "var a = 1 // #nosec G404 --  "), "no reason"},
		{"silenced", "without a rule", "vault/y.go", source("vault", "var a = 1 // #nosec -- spreads retries"), "no rule"},
		{"silenced", "written together", "vault/y.go", source("vault", "var a = 1 //#nosec"), "no rule"},
		{"silenced", "in the middle of a block", "vault/y.go", source("vault", "/* so\n#nosec\n*/\nvar a = 1"), "no rule"},
		{"silenced", "the other way", "vault/y.go", source("vault", "var a = 1 //gosec:disable G404"), "no reason"},
		{"silenced", "in a test", "vault/y_test.go", source("vault", "var a = 1 // #nosec"), "no rule"},
		{"named tests", "one that there is", "vault/README.md", &fstest.MapFile{Data: []byte("`TestStory` tells it, and `TestSto...`.")}, ""},
		{"named tests", "one that there is not", "vault/README.md", &fstest.MapFile{Data: []byte("`TestStor` tells it.")}, "no test TestStor"},
		{"named tests", "none that begin so", "vault/README.md", &fstest.MapFile{Data: []byte("`TestTale...` tell it.")}, "no test TestTale..."},
	} {
		t.Run(c.check+"/"+c.name, func(t *testing.T) {
			fsys := synthetic()
			fsys[c.path] = c.file
			tree, err := readTree(fsys)
			if err != nil {
				t.Fatal(err)
			}
			for _, check := range checks {
				if check.name != c.check {
					continue
				}
				bad := strings.Join(check.run(tree), "\n")
				if c.want == "" && bad != "" || c.want != "" && !strings.Contains(bad, c.want) {
					t.Errorf("says %q, want %q", bad, c.want)
				}
				return
			}
			t.Fatalf("there is no check %q", c.check)
		})
	}
}

func TestFuzzTargetsAreFound(t *testing.T) {
	fsys := synthetic()
	fsys["vault/y_test.go"] = source("vault", "func FuzzB(f F) {}\nfunc FuzzA(f F) {}\nfunc TestFuzz(t T) {}")
	tree, err := readTree(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tree.fuzzTargets(), "vault FuzzA\nvault FuzzB\n"; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
}
