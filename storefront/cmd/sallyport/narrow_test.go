package main

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// TestNarrowedSaysTheSame: the help of every command is that of the whole grammar, which is what kong knows of it.
func TestNarrowedSaysTheSame(t *testing.T) {
	var c commands
	var out bytes.Buffer
	whole, err := kong.New(&c, kong.Name("sallyport"), kong.Description(description), helpTexts(phrases.German), kong.Writers(&out, &out),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Exit(func(code int) { panic(exit(code)) }))
	if err != nil {
		t.Fatal(err)
	}
	help := func(ask func()) {
		t.Helper()
		defer func() {
			if _, ok := recover().(exit); !ok {
				t.Error("no help")
			}
		}()
		out.Reset()
		ask()
	}
	looked := 0
	var look func(path []string, n *kong.Node)
	look = func(path []string, n *kong.Node) {
		args := append(slices.Clone(path), "--help")
		help(func() { whole.Parse(args) })
		want := out.String()
		grammar := narrowed(reflect.TypeFor[commands](), args)
		help(func() { parseBy(grammar, args, phrases.German, &out, io.Discard) })
		if got := out.String(); got != want || !strings.HasPrefix(got, "Usage: ") {
			t.Errorf("%v says\n%s\nand not\n%s", path, got, want)
		}
		if (grammar == reflect.TypeFor[commands]()) != (len(path) == 0) {
			t.Errorf("%v: narrowed to %v", path, grammar)
		}
		looked++
		for _, child := range n.Children {
			look(append(slices.Clone(path), child.Name), child)
		}
	}
	look(nil, whole.Model.Node)
	if looked < 100 {
		t.Errorf("%d commands", looked)
	}
}

// TestNarrowedByMistake: a value that is a command's name, before the command, costs time and nothing else; and what nobody understands is told as ever.
func TestNarrowedByMistake(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--profile me biz contacts", "biz contacts"},
		{"me set get set=1", "me set <field> <value>"},
		{"me --details --profile device give-up anna", "me give-up <person>"},
	} {
		args := strings.Fields(c.args)
		parsed, global, err := parse(args, phrases.English, io.Discard, io.Discard)
		if err != nil || parsed.Command() != c.want {
			t.Errorf("%s: %v; want %s", c.args, err, c.want)
		} else if strings.Contains(c.args, "--profile") && global.Profile == "" {
			t.Errorf("%s: the flags before the command are lost", c.args)
		}
	}
	var out bytes.Buffer
	if code := Run(t.Context(), []string{"me", "inbix"}, nil, &out, &out); code != exitUsage || !strings.Contains(out.String(), "inbox") {
		t.Errorf("%d, %s", code, out.String())
	}
}
