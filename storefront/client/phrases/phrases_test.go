package phrases

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCatalogue: every phrase has both languages, with the same places, and no words of the craft.
func TestCatalogue(t *testing.T) {
	places := func(text string) (out []string) {
		for _, m := range place.FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	for id, phrase := range catalogue { // which does not load with other languages
		if phrase.English == "" || phrase.German == "" {
			t.Errorf("%s: it needs English and German", id)
		}
		if en, de := places(phrase.English), places(phrase.German); !slices.Equal(en, de) {
			t.Errorf("%s: the places are %v in English and %v in German", id, en, de)
		}
		for _, l := range []Language{English, German} {
			text := phrase.in(l)
			if !Plain(text) {
				t.Errorf("%s (%s): %q has a word that people need not know", id, l, text)
			}
			if rest := place.ReplaceAllString(text, ""); strings.ContainsAny(rest, "{}#") {
				t.Errorf("%s (%s): %q has a place that is none", id, l, text)
			}
			if text != strings.TrimSpace(text) && !strings.HasSuffix(id, ".ask") && id != "history.sealed" {
				t.Errorf("%s (%s): %q begins or ends with a space", id, l, text)
			}
		}
	}
}

// TestCodes: a person is told about every code of the protocol.
func TestCodes(t *testing.T) {
	source, err := os.ReadFile("../../../policies/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code\w+\s+(?:Code\s+)?= "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(codes) < 30 {
		t.Fatalf("%d codes are found", len(codes))
	}
	for _, m := range codes {
		if !Has("why." + m[1]) {
			t.Errorf("there is no phrase why.%s", m[1])
		}
	}
}

func TestSay(t *testing.T) {
	for _, c := range []struct {
		id    string
		pairs []any
		want  string
	}{
		{"restored", []any{"n", 1, "dir", "d"}, "1 Feld in d wiederhergestellt."},
		{"restored", []any{"n", 12, "dir", "{n}"}, "12 Felder in {n} wiederhergestellt."}, // what fills a place is no phrase
		{"checkpoint.witness.newer", []any{"n", "1"}, "Dieses Gerät sah 1 Eintrag mehr als sie. Rufen Sie dies in einer Weile noch einmal auf."},
		{"published", []any{"fields", "note"}, "note ist veröffentlicht; lesen kann es nur, wer Ihre Erlaubnis hat."}, // and not that nobody can: somebody may
		{"history.read", []any{"reader", ID("history.somebody"), "what", "note", "sealed", ""}, "jemand hat note gelesen."},
		{"removed", nil, "{fields} entfernt."},
		{"no such phrase", []any{"n", 1}, "no such phrase"},
	} {
		if got := Say(German, c.id, c.pairs...); got != c.want {
			t.Errorf("%s: %q, want %q", c.id, got, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name    string
		locales []string
		want    Language
	}{
		{"", nil, English}, {"", []string{"", "de_DE.UTF-8", "en_US"}, German}, {"", []string{"C", "de_DE"}, English}, {"en", []string{"de_AT"}, English},
		{"de", nil, German}, {"", []string{"de"}, German}, {"", []string{"den_XX"}, English},
	} {
		if got, err := Choose(c.name, c.locales...); got != c.want || err != nil {
			t.Errorf("%q, %q: %s, %v", c.name, c.locales, got, err)
		}
	}
	if _, err := Choose("fr"); err == nil {
		t.Error("French is taken")
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"the monkey reads": true, "your keys": false, "The key-use log": false, "Ihr Schlüssel": false, "die Erdkurve": false, "an epoch": false, "turkey": true, "capsules": false,
	} {
		if Plain(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
