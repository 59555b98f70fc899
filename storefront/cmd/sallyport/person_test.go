package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// TestFieldsAreCalled: every field and part of the table has a name that people understand, in both languages.
func TestFieldsAreCalled(t *testing.T) {
	for _, e := range catalogue.Entries() {
		if !phrases.Has("field." + string(e.Name)) {
			t.Errorf("%s has no name", e.Name)
		}
		for _, part := range e.Parts {
			if !phrases.Has("part." + part) {
				t.Errorf("part %s of %s has no name", part, e.Name)
			}
		}
	}
}

// TestPlainHelp: nothing that `sallyport me` says about itself has a word of the craft, in either language.
func TestPlainHelp(t *testing.T) {
	for _, l := range []phrases.Language{phrases.English, phrases.German} {
		var c commands
		parser, err := kong.New(&c, kong.Name("sallyport"), helpTexts(l))
		if err != nil {
			t.Fatal(err)
		}
		commands := 0
		var look func(where string, n *kong.Node)
		look = func(where string, n *kong.Node) {
			texts := []string{n.Name, n.Help, n.Detail}
			for _, f := range n.Flags {
				if !f.Hidden {
					texts = append(texts, f.Name, f.Help, f.PlaceHolder)
				}
			}
			for _, p := range n.Positional {
				texts = append(texts, p.Name, p.Help)
			}
			for _, text := range texts {
				if !phrases.Plain(text) {
					t.Errorf("%s (%s): %s", where, l, text)
				}
				if strings.Contains(text, "${") {
					t.Errorf("%s (%s): a text is missing: %s", where, l, text)
				}
			}
			for _, child := range n.Children {
				commands++
				look(where+" "+child.Name, child)
			}
		}
		for _, n := range parser.Model.Children {
			if n.Name == "me" {
				look("me", n)
			}
		}
		look("shared flags", &kong.Node{Flags: parser.Model.Flags})
		if commands < 20 {
			t.Fatalf("%d commands", commands)
		}
		for _, f := range parser.Model.Flags { // of every command
			if !f.Hidden && !phrases.Plain(f.Help) {
				t.Errorf("--%s (%s): %s", f.Name, l, f.Help)
			}
		}
	}
}

// TestPhrases: the ids of phrases that the sources use are in the catalogue, and what a person's commands print comes from there.
func TestPhrases(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		person := name == "me.go" || strings.HasPrefix(name, "me_") || name == "export.go" || name == "person.go" || name == "place.go"
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			for i, arg := range call.Args {
				text, ok := literal(arg)
				switch {
				case !ok:
				case i == 0 && (fun.Sel.Name == "say" || fun.Sel.Name == "sure") && !strings.HasSuffix(text, ".") && !phrases.Has(text):
					t.Errorf("%s: there is no phrase %q", fset.Position(arg.Pos()), text)
				case i == 1 && fun.Sel.Name == "adding" && !phrases.Has(text):
					t.Errorf("%s: there is no phrase %q", fset.Position(arg.Pos()), text)
				case i == 0 && fun.Sel.Name == "sure" && !phrases.Has(text+".ask"):
					t.Errorf("%s: there is no phrase %q", fset.Position(arg.Pos()), text+".ask")
				case person && (fun.Sel.Name == "note" || strings.HasPrefix(fun.Sel.Name, "Fprint")) && strings.ContainsFunc(verbs.Replace(text), unicode.IsLetter):
					t.Errorf("%s: %q is not in the catalogue", fset.Position(arg.Pos()), text)
				}
			}
			return true
		})
	}
}

var verbs = strings.NewReplacer("%s", "", "%-16s", "", "%v", "", "%q", "", "%d", "")

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// TestExplain: a person hears what went wrong in their language, and the words of the craft only if they ask for them.
func TestExplain(t *testing.T) {
	technical := fmt.Errorf("importing a grant: %w: the token holds no such key", policies.CodeKeyMissing)
	simple := fmt.Errorf("note: %w", client.ErrNoField)
	for _, c := range []struct {
		lang    phrases.Language
		details bool
		err     error
		want    string
	}{
		{phrases.English, false, simple, "sallyport: note: you have no such field; `sallyport me ls` lists yours"},
		{phrases.German, false, simple, "sallyport: note: dieses Feld haben Sie nicht; `sallyport me ls` listet Ihre auf"},
		{phrases.German, true, simple, "sallyport: note: dieses Feld haben Sie nicht; `sallyport me ls` listet Ihre auf\nIm Wortlaut, auf Englisch: note: there is no such field; set it first"},
		{phrases.English, false, technical, "sallyport: " + phrases.Say(phrases.English, "why.key_missing")},
		{phrases.English, true, technical, "sallyport: " + technical.Error()},
		{phrases.English, false, errors.New("no capsule"), "sallyport: something went wrong; --details shows what, for whoever helps you"},
		{phrases.German, false, errors.New("no capsule"), "sallyport: etwas ist schiefgegangen; --details zeigt es denen, die Ihnen helfen"},
		{phrases.German, false, errors.New("no door"), "sallyport: das hat nicht geklappt\nIm Wortlaut, auf Englisch: no door"},
		{phrases.German, false, fmt.Errorf("p: %w", profile.ErrUnlock), "sallyport: das geht nicht auf: Das Passwort ist ein anderes, oder die Datei ist beschädigt"},
		{phrases.English, false, client.ErrNoAccount, "sallyport: " + phrases.Say(phrases.English, "why.no_account")},
		{phrases.German, false, fmt.Errorf("finding it: %w", client.ErrNoContact), "sallyport: " + phrases.Say(phrases.German, "why.no_contact")},
		{phrases.German, false, fmt.Errorf("%w: %q", client.ErrNoContact, "acme"), "sallyport: acme: " + phrases.Say(phrases.German, "why.no_contact")},
		{phrases.German, false, fmt.Errorf("reading the card: %w", &fs.PathError{Op: "open", Path: "karte.vcf", Err: fs.ErrNotExist}), "sallyport: karte.vcf: diese Datei gibt es nicht"},
		{phrases.German, false, errors.Join(policies.CodeUnavailable, &client.Overtaken{What: "acme address.home"}),
			"sallyport: acme address.home: " + phrases.Say(phrases.German, "why.overtaken")},
		{phrases.English, false, &client.Overtaken{What: "acme address.home"}, "sallyport: acme address.home: " + client.ErrOvertaken.Error()},
		// What has many reasons says which, even if only in English.
		{phrases.German, false, fmt.Errorf("%w: it was not copied right", policies.ErrMalformed),
			"sallyport: das hat nicht die Form, die es haben muss\nIm Wortlaut, auf Englisch: malformed: it was not copied right"},
		{phrases.English, false, fmt.Errorf("%w: it was not copied right", policies.ErrMalformed), "sallyport: it was not copied right"},
		{phrases.English, false, noneGiven("acme", fmt.Errorf("%w: this reader has no grant of that", policies.CodeNoGrant)),
			"sallyport: acme: there is no such permission; `sallyport me grants` lists those that you gave"},
		{phrases.English, false, fmt.Errorf("%w: its role", client.ErrRole), "sallyport: " + phrases.Say(phrases.English, "why.role")},
		{phrases.English, false, ofBackup(fmt.Errorf("reading a backup: %w", client.ErrRole)), "sallyport: this is the backup of a business: it is for `sallyport biz restore`"},
		{phrases.German, false, ofBackup(policies.CodeNotFound), "sallyport: das gibt es hier nicht"},
		{phrases.German, false, saidClosed(&session{lang: phrases.German}, "acme", fmt.Errorf("giving up: %w", client.ErrSaidClosed)),
			"sallyport: gemeint ist vielleicht das Konto von acme, vielleicht Ihr eigenes; was Sie aufgeben wollen, ist vorgemerkt, und `sallyport me contacts --refresh` versucht es wieder: " + phrases.Say(phrases.German, "why.said_closed")},
		{phrases.English, false, saidClosed(&session{lang: phrases.English}, "acme", fmt.Errorf("giving up: %w", client.ErrSaidClosed)), "sallyport: giving up: " + client.ErrSaidClosed.Error() + ": " + phrases.Say(phrases.English, "giveup.said_closed", "name", "acme")},
		{phrases.English, false, saidClosed(&session{lang: phrases.English}, "acme", policies.CodeNoGrant), "sallyport: " + policies.CodeNoGrant.Error()},
		{phrases.English, false, fmt.Errorf("%w: acme.example: no such host", names.ErrWebsite), "sallyport: " + phrases.Say(phrases.English, "why.website")},
		{phrases.German, false, fmt.Errorf("%w: acme.example: no such host", names.ErrWebsite), "sallyport: " + phrases.Say(phrases.German, "why.website")},
		{phrases.German, false, (&session{lang: phrases.German}).adding(errUnsure, "usage.both", "field", "note"), "sallyport: es wurde nichts getan: note ist zugleich erlaubt und abgelehnt"},
		{phrases.German, true, (&session{lang: phrases.German}).adding(errUnsure, "usage.both", "field", "note"),
			"sallyport: es wurde nichts getan: note ist zugleich erlaubt und abgelehnt\nIm Wortlaut, auf Englisch: nothing was done: note is both granted and denied"},
		// That nothing is stopped, or announced, is said where it is known, not because somebody on the way said "not found".
		{phrases.English, false, client.ErrNotFrozen, "sallyport: no stop is in force that could be ended"},
		{phrases.English, false, client.ErrNotAnnounced, "sallyport: nothing is announced that could be taken back"},
		{phrases.German, false, fmt.Errorf("ending the stop: %w", policies.CodeNotFound), "sallyport: das gibt es hier nicht"},
		// One cause is told once.
		{phrases.English, false, errors.Join(errors.New("no door"), fmt.Errorf("%w: registered later", errors.New("no door"))), "sallyport: no door: registered later"},
		{phrases.English, false, errors.Join(errors.New("no door"), errors.New("no key hole"), errors.New("no door")), "sallyport: something went wrong; --details shows what, for whoever helps you"},
		{phrases.German, false, fmt.Errorf("publishing: %w", (&session{lang: phrases.German}).adding(policies.CodeUnavailable, "usage.both", "field", "note")),
			"sallyport: note ist zugleich erlaubt und abgelehnt: das Schaufenster oder der Tresor antwortet nicht; versuchen Sie es noch einmal"},
	} {
		s := &session{Global: &Global{Details: c.details}, lang: c.lang, words: []string{"me", "grant", "acme"}}
		if got := s.explain(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.lang, got, c.want)
		}
	}
}

// TestErrorsHavePhrases: what can go wrong in the packages that a person's commands use has a phrase, so that who reads German reads no English.
func TestErrorsHavePhrases(t *testing.T) {
	// Errors that only businesses meet, or that are always another one too.
	others := map[string]bool{"envelope.ErrKey": true}
	source, err := os.ReadFile("person.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, dir := range []string{"../../client", "../../client/catalogue", "../../client/profile", "../../../policies"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for id, object := range f.Scope.Objects {
				if object.Kind != ast.Var || !strings.HasPrefix(id, "Err") || strings.HasSuffix(name, "_test.go") {
					continue
				}
				found++
				if full := f.Name.Name + "." + id; !others[full] && !strings.Contains(string(source), "{"+full+", \"") {
					t.Errorf("%s has no phrase", full)
				}
			}
		}
	}
	if found < 25 {
		t.Errorf("%d errors are found", found)
	}
	for _, list := range [][]struct {
		err error
		id  string
	}{reasons, causes} {
		for _, r := range list {
			if !phrases.Has(r.id) {
				t.Errorf("there is no phrase %s", r.id)
			}
			s := &session{Global: &Global{}, lang: phrases.German}
			want := "sallyport: " + phrases.Say(phrases.German, r.id)
			if slices.Contains(vague, r.id) {
				want += "\nIm Wortlaut, auf Englisch: opening it: " + r.err.Error() + " (in detail)"
			}
			if got := s.explain(fmt.Errorf("opening it: %w (in detail)", r.err)); got != want {
				t.Errorf("%v: %q", r.err, got)
			}
		}
	}
}

// TestOldBackupLeavesTheFolder: a backup that is of no use any more leaves no profile behind, and takes nothing with it that was in the folder before.
func TestOldBackupLeavesTheFolder(t *testing.T) {
	secret, err := profile.NewKeyFile(filepath.Join(t.TempDir(), "opener"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mine := filepath.Join(dir, "first.backup")
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(mine, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Create(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Save([]byte("restored")); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	s := &session{Global: &Global{}, lang: phrases.English, stderr: &told}
	if err := s.restoredOld(p, client.ErrReplaced); !errors.Is(err, client.ErrReplaced) || !strings.Contains(err.Error(), "nothing is set up here") {
		t.Error(err)
	}
	if got, err := os.ReadFile(mine); string(got) != "mine" || !strings.Contains(told.String(), dir) || !strings.Contains(told.String(), "first.backup") {
		t.Errorf("what was in the folder: %q, %v; said: %q", got, err, told.String())
	}
	if profile.Exists(dir) {
		t.Error("the profile is left")
	}
}

// TestPlaces: a profile does not come to lie where others get at it, or where it is copied to other computers, by mistake.
func TestPlaces(t *testing.T) {
	home := t.TempDir()
	mkdir := func(name string, mode os.FileMode) string {
		dir := filepath.Join(home, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	mkdir("repo/.git", 0o755)
	if err := os.WriteFile(filepath.Join(mkdir("cloud[1]", 0o755), ".sync_0a.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &session{Global: &Global{}, lang: phrases.English, stdin: strings.NewReader("")}
	for dir, want := range map[string]struct{ asks, never bool }{
		mkdir("private", 0o700) + "/me": {}, mkdir("ordinary", 0o755) + "/a/b/me": {}, mkdir("open", 0o777) + "/me": {never: true}, mkdir("sticky", 0o777|os.ModeSticky) + "/me": {},
		mkdir("group", 0o775) + "/me": {never: true}, mkdir("Dropbox/papers", 0o700) + "/me": {asks: true}, filepath.Join(home, "repo/deep/me"): {asks: true},
		filepath.Join(home, "cloud[1]/me"): {asks: true},
	} {
		err, sure := s.fit(dir, false), s.fit(dir, true)
		if (err != nil) != (want.asks || want.never) || (sure != nil) != want.never {
			t.Errorf("%s: %v, and with --yes: %v", dir, err, sure)
		}
	}
	// A link leads to where it leads. A file is asked about, and written where somebody says that they mean it.
	for link, to := range map[string]string{"papers": "Dropbox/papers", "visitors": "open", "safe": "private"} {
		if err := os.Symlink(filepath.Join(home, to), filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	for file, asks := range map[string]bool{
		"private/f": false, "ordinary/f": false, "sticky/f": false, "safe/f": false, "open/f": true, "group/f": true, "Dropbox/papers/f": true, "repo/deep/f": true, "cloud[1]/f": true,
		"papers/f": true, "papers/a/b/f": true, "visitors/f": true,
	} {
		file = filepath.Join(home, file)
		if err := s.fitFile(file, false); (err != nil) != asks || asks && !errors.Is(err, errUnsure) {
			t.Errorf("%s: %v", file, err)
		}
		if err := s.fitFile(file, true); err != nil {
			t.Errorf("%s, meant: %v", file, err)
		}
	}
	if err := s.fit(filepath.Join(home, "visitors/me"), true); !errors.Is(err, errUnsure) {
		t.Errorf("a profile behind a link: %v", err)
	}
}

// TestEverything: who is about to share all they have is asked.
func TestEverything(t *testing.T) {
	have := []policies.Field{"a", "b", "c", "d"}
	for _, c := range []struct {
		fields, have []policies.Field
		want         bool
	}{{have, have, true}, {have[:3], have, false}, {have[:2], have[:2], false}, {nil, nil, false}} {
		if got := everything(c.fields, c.have); got != c.want {
			t.Errorf("%v of %v: %v", c.fields, c.have, got)
		}
	}
}

func TestExportTable(t *testing.T) {
	out, err := exportTable([]exportedField{{FieldInfo: client.FieldInfo{Field: "note", Version: 3}, Text: "=HYPERLINK(\"x\")"}, {FieldInfo: client.FieldInfo{Field: "name", Version: 1}, Text: "a,\nb"}})
	want := "field,version,value\r\nnote,3,\"'=HYPERLINK(\"\"x\"\")\"\r\nname,1,\"a,\r\nb\"\r\n"
	if string(out) != want || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// TestHelpLanguage: which language help is in depends on the command, not on what somebody calls a folder or a contact.
func TestHelpLanguage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"me grant --help --lang de", "Nicht noch einmal fragen"},
		{"--profile biz me grant --help --lang de", "Nicht noch einmal fragen"},
		{"--profile audit me grant --help --lang de", "Nicht noch einmal fragen"},
		{"--profile me biz read --help --lang de", "Folder of the profile"},
		{"--lang de biz read --help", "Folder of the profile"},
	} {
		var out, errs bytes.Buffer
		if code := Run(t.Context(), strings.Fields(c.args), strings.NewReader(""), &out, &errs); code != exitOK || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: code %d, no %q in\n%.600s%s", c.args, code, c.want, out.String(), errs.String())
		}
	}
}

// TestPlacesByLinks: what others can put in the place of a link on the way counts too, and so does where a link leads before "..".
func TestPlacesByLinks(t *testing.T) {
	home := t.TempDir()
	for dir, mode := range map[string]os.FileMode{"private": 0o700, "open": 0o777, "Dropbox": 0o700, "Dropbox/papers": 0o700} {
		if err := errors.Join(os.MkdirAll(filepath.Join(home, dir), 0o700), os.Chmod(filepath.Join(home, dir), mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range [][2]string{{"open/way", "private"}, {"by", "open/way"}, {"papers", "Dropbox/papers"}} {
		if err := os.Symlink(filepath.Join(home, l[1]), filepath.Join(home, l[0])); err != nil {
			t.Fatal(err)
		}
	}
	s := &session{Global: &Global{}, lang: phrases.English, stdin: strings.NewReader("")}
	if err := s.fit(home+"/by/me", true); !errors.Is(err, errUnsure) {
		t.Errorf("a profile behind a link that others can replace: %v", err)
	}
	for _, file := range []string{"by/f", "papers/../f"} {
		if err := s.fitFile(home+"/"+file, false); !errors.Is(err, errUnsure) {
			t.Errorf("%s: %v", file, err)
		}
	}
	t.Chdir(home)
	if err := s.fitFile("papers/f", false); !errors.Is(err, errUnsure) {
		t.Errorf("a relative name: %v", err)
	}
	t.Chdir(home + "/papers")
	for _, file := range []string{"f", "./f", "../f"} {
		if err := s.fitFile(file, false); !errors.Is(err, errUnsure) {
			t.Errorf("%s in a folder that is a link: %v", file, err)
		}
	}
}
