package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/tests/vectors"
)

// A seed says which member of which vectors a target takes.
type seed struct {
	target string   // as in fuzz.txt: package and name
	files  string   // glob in tests/vectors
	of     []string // members of a case's in or out, one for each argument; "hex:" are bytes, "text:" a string, "bytes:" a string's bytes
}

// seeds maps vectors to targets. A target that takes nothing that a vector has is seeded by its own f.Add alone.
var seeds = []seed{
	{"policies FuzzParseAnswer", "answer.json", []string{"hex:answer"}},
	{"policies FuzzDocument", "document-*.json", []string{"text:type", "bytes:payload"}},
	{"policies/guardrails FuzzParse", "guardrails.json", []string{"text:rules"}},
	{"policies FuzzParseLeaf", "leaf.json", []string{"hex:leaf"}},
	{"policies/envelope FuzzParse", "dsse.json", []string{"bytes:envelope"}},
	{"policies/envelope FuzzParse", "document-*.json", []string{"bytes:envelope"}},
	{"policies/envelope FuzzParsePublicKey", "composite-signature.json", []string{"hex:public"}},
	{"policies/evidence FuzzParseEntry", "document-entry.json", []string{"hex:leaf"}},
	{"policies/evidence FuzzParseLogLeaf", "document-entry.json", []string{"hex:leaf"}},
	{"policies/evidence FuzzParseReceipt", "document-receipt.json", []string{"bytes:receipt"}},
	{"policies/problem FuzzRead", "document-receipt.json", []string{"bytes:receipt"}},
	{"vault/pre FuzzOpen", "item.json", []string{"hex:leaf", "hex:ciphertext"}},
	{"vault/pre FuzzOpen", "capsule.json", []string{"hex:leaf", "hex:ciphertext"}},
	{"vault/pre FuzzPoint", "reencrypt.json", []string{"hex:capsule", "hex:point"}},
	{"vault/pre FuzzLift", "reencrypt.json", []string{"hex:x"}},
	{"vault/pre FuzzPKCS8", "pkcs8.json", []string{"hex:pkcs8"}},
	{"vault/pre FuzzBlob", "hpke-import.json", []string{"hex:blob"}},
}

// writeSeeds writes the vectors into the targets' testdata folders and removes those that no vector stands for any more.
func writeSeeds(root string) error {
	wanted, err := vectorSeeds(root)
	if err != nil {
		return err
	}
	for _, path := range seedFiles(root) {
		if _, ok := wanted[path]; !ok {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for path, text := range wanted {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// seedFiles are the vector seeds that are in the tree.
func seedFiles(root string) []string {
	var found []string
	for _, s := range seeds {
		matches, _ := filepath.Glob(filepath.Join(folder(root, s.target), "vector-*")) // the pattern is well formed
		found = append(found, matches...)
	}
	return found
}

// folder is where the testing package looks for a target's inputs.
func folder(root, target string) string {
	pkg, name, _ := strings.Cut(target, " ")
	return filepath.Join(root, filepath.FromSlash(pkg), "testdata", "fuzz", name)
}

// maxSeed keeps the vectors of 1 MiB out: they cost much and reach nothing that small ones do not.
const maxSeed = 16 << 10

// vectorSeeds are the inputs that the vectors make, by file.
func vectorSeeds(root string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, s := range seeds {
		files, err := filepath.Glob(filepath.Join(root, "tests", "vectors", s.files))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no vectors match %s", s.files)
		}
		made := 0
		for _, path := range files {
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			var f vectors.File
			if err := json.Unmarshal(raw, &f); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			for i := range f.Cases {
				text, ok := s.encode(&f.Cases[i])
				if !ok || len(text) > maxSeed {
					continue
				}
				sum := sha256.Sum256(text)
				out[filepath.Join(folder(root, s.target), "vector-"+hex.EncodeToString(sum[:8]))] = text
				made++
			}
		}
		if made == 0 {
			return nil, fmt.Errorf("%s: no case of %s has %s", s.target, s.files, strings.Join(s.of, ", "))
		}
	}
	return out, nil
}

// encode writes a case in the testing package's own form.
func (s *seed) encode(c *vectors.Case) ([]byte, bool) {
	var b bytes.Buffer
	b.WriteString("go test fuzz v1\n")
	for _, member := range s.of {
		kind, name, _ := strings.Cut(member, ":")
		text, ok := c.In[name].(string)
		if !ok {
			text, ok = c.Out[name].(string)
		}
		if !ok && name == "payload" { // a whole document: its payload lies in the envelope
			text, ok = payload(c)
		}
		if !ok {
			return nil, false
		}
		switch kind {
		case "hex":
			raw, err := hex.DecodeString(text)
			if err != nil {
				return nil, false
			}
			fmt.Fprintf(&b, "[]byte(%s)\n", strconv.Quote(string(raw)))
		case "bytes":
			fmt.Fprintf(&b, "[]byte(%s)\n", strconv.Quote(text))
		case "text":
			fmt.Fprintf(&b, "string(%s)\n", strconv.Quote(text))
		}
	}
	return b.Bytes(), true
}

func payload(c *vectors.Case) (string, bool) {
	text, ok := c.In["envelope"].(string)
	if !ok {
		return "", false
	}
	e, err := envelope.Parse([]byte(text))
	if err != nil {
		return "", false
	}
	return string(e.Payload), true
}
