// Package phrases is what a private person reads, in English and German: one catalogue, phrases.json, of which every phrase has both languages.
//
// A person is told what they can do something about: their password, their backup, their devices, who may read what. How it is done underneath is not
// their business, so no phrase has the words for it ([Plain]); businesses, operators and auditors read other texts.
//
// A phrase has places, {name}, which [Say] fills. {name#one#other} is the first word if the value is 1, else the second.
package phrases

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
)

// Language is a language of the catalogue.
type Language string

const (
	// English is what anybody gets who says nothing else.
	English Language = "en"
	// German is also what a German locale gets.
	German Language = "de"
)

//go:embed phrases.json
var raw []byte

// phrase is a text in each language.
type phrase struct {
	English string `json:"en"`
	German  string `json:"de"`
}

func (p phrase) in(l Language) string {
	switch l {
	case English:
		return p.English
	case German:
		return p.German
	}
	return ""
}

// catalogue has the phrases by id.
var catalogue = load()

func load() map[string]phrase {
	out := make(map[string]phrase, 1000) // all of them fit without growing
	if err := json.Unmarshal(raw, &out, json.RejectUnknownMembers(true)); err != nil {
		panic("phrases.json: " + err.Error()) // it is part of the program, and a test reads it
	}
	return out
}

// Choose finds the language: what is asked for by name, or else the first of the locales that is set, in the order in which POSIX asks them
// (LC_ALL, LC_MESSAGES, LANG).
func Choose(name string, locales ...string) (Language, error) {
	switch Language(name) {
	case English, German:
		return Language(name), nil
	case "":
	default:
		return English, fmt.Errorf("the languages are %s and %s, not %q", English, German, name)
	}
	for _, l := range locales {
		if l == "" {
			continue
		}
		if language, _, _ := strings.Cut(l, "_"); language == string(German) {
			return German, nil
		}
		break
	}
	return English, nil
}

var place = regexp.MustCompile(`\{([a-z]+)(?:#([^#{}]*)#([^#{}]*))?\}`)

// ID stands for a phrase that fills a place of another one.
type ID string

// Say is a phrase with its places filled: names and values in turn. An id that the catalogue does not have is said as it is.
func Say(l Language, id string, pairs ...any) string {
	text := catalogue[id].in(l)
	if text == "" {
		return id
	}
	return place.ReplaceAllStringFunc(text, func(found string) string {
		m := place.FindStringSubmatch(found)
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] != m[1] {
				continue
			}
			value := fmt.Sprint(pairs[i+1])
			if id, ok := pairs[i+1].(ID); ok {
				value = Say(l, string(id))
			}
			switch {
			case !strings.Contains(found, "#"):
				return value
			case value == "1":
				return m[2]
			}
			return m[3]
		}
		return found
	})
}

// Has reports whether the catalogue has a phrase.
func Has(id string) bool {
	_, ok := catalogue[id]
	return ok
}

// technical are the words that people without technical knowledge need not know. An access key on a ring is one too, but no phrase needs it.
var technical = regexp.MustCompile(`(?i)\b(keys?|re-encryption|curves?|capsules?|epochs?|scalars?|manifests?|ciphertexts?|mirror|merkle)\b|schlüssel|kurve|kapsel|epoche|\bkeyfile\b`)

// Plain reports whether a text is free of words that people without technical knowledge need not know.
func Plain(text string) bool { return !technical.MatchString(text) }
