// Package vectors holds the test vectors of suite SP1, and the reference that makes them.
//
// The JSON files beside this source are the product: everything that a second implementation, in any language, needs in order to agree with
// this one, secrets and randomness included. They are made by `go run ./tests/vectors/generate` from names alone, so the same
// source gives the same bytes. The reference does each step a second time and as plainly as possible (reference.go); the tests of this package
// compare the files with what the reference makes and then run every case through the public functions of packages pre,
// policies and envelope. So two pieces of code agree on each vector before a third is asked.
//
// # Form
//
// A file has three texts (what it is, how it was made, what an implementation must do) and cases. A case has a description, an operation, what
// is expected ("ok" or the kind of refusal), inputs and outputs. Byte strings are lower-case hexadecimal; integers are decimal
// strings, because they may exceed 2^53; documents are text. The kinds of refusal:
//
//	open       does not open, for whatever reason
//	key        not a usable key
//	point      not a point of P-256
//	too_large  a value above 1 MiB
//	malformed  bytes that are not what their type demands
//	signature  a signature does not verify
//	proof      a proof or commitment does not verify
//	pin        not the pinned vault
package vectors

import (
	"encoding/hex"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// File is one file of vectors.
type File struct {
	Name      string `json:"-"`
	What      string `json:"what"`
	Made      string `json:"made"`
	Implement string `json:"implement"`
	Cases     []Case `json:"cases"`
}

// Case is one vector.
type Case struct {
	Description string         `json:"description"`
	Operation   string         `json:"operation"`
	Expect      string         `json:"expect"`
	In          map[string]any `json:"in"`
	Out         map[string]any `json:"out,omitzero"`
}

const made = "By `go run ./tests/vectors/generate` from reference.go; fixed bytes are SHA-256(name || u32 counter) with a name of their own each."

// Bytes is the file as it is stored.
func (f *File) Bytes() ([]byte, error) {
	return json.Marshal(f, json.Deterministic(true), jsontext.WithIndent(" "), jsontext.EscapeForHTML(false))
}

// Generate makes all files.
func Generate() []File {
	files := []File{
		hkdfFile(), scalarFile(), pkcs8File(), itemFile(), capsuleFile(), leafFile(), rotateFile(), reencryptFile(),
		grantKEMFile(), hpkeFile(), sessionKeyFile(), answerFile(), loginFile(), merkleFile(), padmeFile(), compositeFile(), dsseFile(), passwordFile(),
	}
	files = append(files, documentFiles()...)
	files = append(files, successionFiles()...)
	files = append(files, guardrailFiles()...)
	files = append(files, invitationFiles()...)
	for i := range files {
		files[i].Made = made
	}
	return files
}

// add appends a case. Byte strings and integers get their text form here.
func (f *File) add(description, operation, expect string, in, out map[string]any) {
	f.Cases = append(f.Cases, Case{description, operation, expect, text(in), text(out)})
}

func text(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		switch v := v.(type) {
		case []byte:
			out[k] = hex.EncodeToString(v)
		case [][]byte:
			list := make([]string, len(v))
			for i := range v {
				list[i] = hex.EncodeToString(v[i])
			}
			out[k] = list
		case int:
			out[k] = strconv.Itoa(v)
		case uint64:
			out[k] = strconv.FormatUint(v, 10)
		default:
			out[k] = v
		}
	}
	return out
}

// with is a copy of m with some members changed: name, value, name, value...
func with(m map[string]any, changes ...any) map[string]any {
	out := make(map[string]any, len(m)+len(changes)/2)
	for k, v := range m {
		out[k] = v
	}
	for i := 0; i < len(changes); i += 2 {
		out[changes[i].(string)] = changes[i+1]
	}
	return out
}

// flip is a copy of b with the lowest bit of one byte flipped; a negative place counts from the end.
func flip(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	return b
}
