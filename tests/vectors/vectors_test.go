package vectors

import (
	"bytes"
	stdhkdf "crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/pre"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// TestFilesAreCurrent makes the files again and compares them byte for byte.
func TestFilesAreCurrent(t *testing.T) {
	stored := map[string]bool{}
	for _, f := range Generate() {
		stored[f.Name] = true
		want, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Name)
		if err != nil {
			t.Errorf("%v: run go run ./tests/vectors/generate", err)
			continue
		}
		if !bytes.Equal(got, append(want, '\n')) {
			t.Errorf("%s is not what the reference makes: run go run ./tests/vectors/generate and look at the difference", f.Name)
		}
	}
	names, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !stored[name] {
			t.Errorf("%s is made by nothing", name)
		}
	}
}

// TestVectors reads the stored files as a second implementation would and runs every case through the public functions.
func TestVectors(t *testing.T) {
	names, err := filepath.Glob("*.json")
	if err != nil || len(names) < 27 {
		t.Fatalf("%d files %v", len(names), err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var file File
			if err := json.Unmarshal(raw, &file, json.RejectUnknownMembers(true)); err != nil {
				t.Fatal(err)
			}
			var ok, refused int
			for i, c := range file.Cases {
				check := operations[name+" "+c.Operation]
				if name == "password.json" {
					check = passwordOperations[c.Operation]
				}
				if check == nil {
					check = operations[c.Operation]
				}
				if check == nil {
					t.Fatalf("no operation %q", c.Operation)
				}
				in := &values{t: t, m: c.In}
				out, err := check(in)
				kind := kindOf(err)
				if kind != c.Expect {
					t.Errorf("case %d (%s, %s): %s (%v), want %s", i, c.Operation, c.Description, kind, err, c.Expect)
					continue
				}
				if err != nil {
					refused++
					continue
				}
				ok++
				for k, v := range text(out) {
					if !equal(v, c.Out[k]) {
						t.Errorf("case %d (%s, %s): %s is %v, want %v", i, c.Operation, c.Description, k, v, c.Out[k])
					}
				}
				if len(out) == 0 && len(c.Out) != 0 {
					t.Errorf("case %d (%s): nothing was compared", i, c.Operation)
				}
			}
			if ok == 0 {
				t.Error("no positive case")
			}
			t.Logf("%d positive, %d negative", ok, refused)
		})
	}
}

func equal(got, want any) bool {
	a, errA := json.Marshal(got, json.Deterministic(true))
	b, errB := json.Marshal(want, json.Deterministic(true))
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func kindOf(err error) string {
	for _, k := range []struct {
		is   error
		name string
	}{{password.ErrPoint, "point"}, {pre.ErrOpen, "open"}, {pre.ErrKey, "key"}, {pre.ErrPoint, "point"}, {pre.ErrTooLarge, "too_large"}, {policies.ErrSignature, "signature"},
		{policies.ErrProof, "proof"}, {policies.ErrPin, "pin"}, {policies.ErrMalformed, "malformed"}} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	if err != nil {
		return "another error"
	}
	return "ok"
}

// values are the inputs of a case. A missing one is an error of the file.
type values struct {
	t *testing.T
	m map[string]any
}

func (v *values) str(name string) string {
	s, ok := v.m[name].(string)
	if !ok {
		v.t.Fatalf("no input %q", name)
	}
	return s
}

func (v *values) bytes(name string) []byte {
	b, err := hex.DecodeString(v.str(name))
	if err != nil {
		v.t.Fatal(name, err)
	}
	return b
}

func (v *values) num(name string) uint64 {
	n, err := strconv.ParseUint(v.str(name), 10, 64)
	if err != nil {
		v.t.Fatal(name, err)
	}
	return n
}

func (v *values) list(name string) (out [][]byte) {
	list, ok := v.m[name].([]any)
	if !ok {
		if v.m[name] == nil {
			return nil
		}
		v.t.Fatalf("no list %q", name)
	}
	for _, e := range list {
		b, err := hex.DecodeString(e.(string))
		if err != nil {
			v.t.Fatal(name, err)
		}
		out = append(out, b)
	}
	return out
}

func (v *values) id(name string) (id [32]byte) {
	if copy(id[:], v.bytes(name)) != 32 {
		v.t.Fatalf("%q is not 32 bytes", name)
	}
	return id
}

func (v *values) slot() policies.Slot {
	return policies.Slot{Owner: v.id("owner"), Field: policies.Field(v.str("field")), Epoch: v.num("epoch"), Author: v.id("author")}
}

func (v *values) root(name string) *pre.Root {
	r, err := pre.ParseRoot(v.bytes(name))
	if err != nil {
		v.t.Fatal(name, err)
	}
	return r
}

func (v *values) leaf() *policies.Leaf {
	l, err := policies.ParseLeaf(v.bytes("leaf"))
	if err != nil {
		v.t.Fatal(err)
	}
	return &l
}

func (v *values) readerKey() *pre.ReaderKey {
	return v.root("reader_root").ReaderKey(v.id("owner"), policies.Nonce(v.bytes("nonce")))
}

func (v *values) random() *bytes.Reader { return bytes.NewReader(v.bytes("random")) }

type outputs = map[string]any

// operations run a case through the public functions; an operation of one file goes before one of all.
var operations = map[string]func(*values) (outputs, error){
	"published":            publishedOperation,
	"refusals":             refusalsOperation,
	"vet":                  vetOperation,
	"token":                tokenOperation,
	"link":                 linkOperation,
	"invitation.json open": openInvitationOperation,
	"hkdf": func(v *values) (outputs, error) {
		info := policies.Encode(v.str("use"), v.list("fields")...)
		okm, err := stdhkdf.Key(sha256.New, v.bytes("ikm"), v.bytes("salt"), string(info), int(v.num("size")))
		if err == nil && bytes.Equal(v.bytes("ikm"), ownerRoot) { // the seeds that package pre hands out
			root := v.root("ikm")
			id, kem, login := root.IdentitySeed(), root.KEMSeed(), root.LoginSeed()
			seeds := map[string][]byte{"identity-mldsa65": id[:32], "identity-ed25519": id[32:], "identity-kem": kem[:], "login-kem": login[:]}
			if seed, known := seeds[v.str("use")]; known && !bytes.Equal(seed, okm) {
				err = errors.New("package pre derives another seed")
			}
		}
		return outputs{"info": info, "okm": okm}, err
	},
	// Reductions and quotients are inside package pre, whose own test reads these cases.
	"reduce": func(v *values) (outputs, error) { return outputs{"scalar": modN(v.bytes("wide"))}, nil },
	"quotient": func(v *values) (outputs, error) {
		if bytes.Equal(v.bytes("d"), make([]byte, 32)) {
			return nil, pre.ErrKey
		}
		return outputs{"rk": divide(v.bytes("a"), v.bytes("d"))}, nil
	},
	"field-key": func(v *values) (outputs, error) {
		k, err := v.root("root").FieldKey(v.slot())
		if err != nil {
			return nil, err
		}
		author, err := k.Author()
		if err != nil {
			return nil, err
		}
		return outputs{"A": author.Bytes()}, nil
	},
	"re-encryption-key": grantOperation,
	"grant":             grantOperation,
	"pkcs8.json parse": func(v *values) (outputs, error) {
		rk, err := pre.ParseReEncryptionKey(v.bytes("pkcs8"))
		if err != nil {
			return nil, err
		}
		return outputs{"scalar": rk.PKCS8()[35:]}, nil
	},
	"leaf.json parse": func(v *values) (outputs, error) {
		l, err := policies.ParseLeaf(v.bytes("leaf"))
		if err != nil {
			return nil, err
		}
		hash := l.Hash()
		if !bytes.Equal(l.Bytes(), v.bytes("leaf")) {
			return nil, errors.New("written back, the leaf differs")
		}
		return outputs{"owner": l.Owner[:], "field": string(l.Field), "epoch": l.Epoch, "author": l.Author[:], "version": l.Version, "capsule": l.Capsule[:],
			"ciphertext_hash": l.CiphertextHash[:], "commitment": l.Commitment[:], "leaf_hash": hash[:]}, nil
	},
	"seal": func(v *values) (outputs, error) {
		k, err := v.root("root").FieldKey(v.slot())
		if err != nil {
			return nil, err
		}
		leaf, ct, err := k.Seal(v.num("version"), v.bytes("value"), v.random())
		return outputs{"leaf": leaf.Bytes(), "ciphertext": ct}, err
	},
	"author-seal": func(v *values) (outputs, error) {
		k, err := pre.ParseAuthorKey(v.slot(), v.bytes("A"))
		if err != nil {
			return nil, err
		}
		leaf, ct, err := k.Seal(v.num("version"), v.bytes("value"), v.random())
		return outputs{"leaf": leaf.Bytes(), "ciphertext": ct}, err
	},
	"open": func(v *values) (outputs, error) {
		k, err := v.root("root").FieldKey(v.slot())
		if err != nil {
			return nil, err
		}
		value, err := k.Open(v.leaf(), v.bytes("ciphertext"))
		return outputs{"value": value}, err
	},
	"rotate": func(v *values) (outputs, error) {
		slot := v.slot()
		k, err := v.root("root").FieldKey(slot)
		if err != nil {
			return nil, err
		}
		slot.Epoch = v.num("next_epoch")
		next, err := v.root("root").FieldKey(slot)
		if err != nil {
			return nil, err
		}
		leaf, err := k.Rotate(next, v.leaf(), v.random())
		if err != nil {
			return nil, err
		}
		value, err := next.Open(&leaf, v.bytes("ciphertext"))
		return outputs{"leaf": leaf.Bytes(), "value": value}, err
	},
	"decompress": func(v *values) (outputs, error) {
		c := policies.Capsule(v.bytes("capsule"))
		point, err := pre.Decompress(&c)
		return outputs{"point": point[:]}, err
	},
	"check-point": func(v *values) (outputs, error) {
		c, point := policies.Capsule(v.bytes("capsule")), [65]byte(v.bytes("point"))
		return nil, pre.CheckPoint(&point, &c)
	},
	"reencrypt": func(v *values) (outputs, error) {
		rk, err := pre.ParseReEncryptionKey(v.bytes("pkcs8"))
		if err != nil {
			return nil, err
		}
		c := policies.Capsule(v.bytes("capsule"))
		x, err := pre.Reencrypt(rk, &c)
		return outputs{"x": x[:]}, err
	},
	"reencrypt.json open": func(v *values) (outputs, error) {
		secret, err := v.readerKey().OpenGrant(v.bytes("ct"))
		if err != nil {
			return nil, err
		}
		value, err := secret.Open(v.id("grant"), v.id("reader"), v.leaf(), v.id("x"), v.bytes("ciphertext"))
		return outputs{"value": value}, err
	},
	"reader-key": func(v *values) (outputs, error) { return outputs{"public": v.readerKey().Public()}, nil },
	"encapsulate": func(v *values) (outputs, error) {
		_, _, err := pre.NewGrantSecret(v.bytes("public"), nil)
		return nil, err
	},
	"decapsulate": func(v *values) (outputs, error) {
		_, err := v.readerKey().OpenGrant(v.bytes("ct"))
		return nil, err
	},
	"import-info": func(v *values) (outputs, error) {
		info, err := pre.ImportInfo(v.id("vault"), v.id("grant_hash"), policies.Field(v.str("field")), v.num("epoch"), v.id("author"))
		return outputs{"info": info}, err
	},
	"message-info": func(v *values) (outputs, error) {
		info, err := pre.MessageInfo(v.str("type"), v.id("from"), v.id("to"))
		return outputs{"info": info}, err
	},
	"write-info": func(v *values) (outputs, error) {
		g := writing.Grant{Header: policies.Header{ID: v.id("grant")}, Audience: v.id("vault"), Owner: v.id("owner"), Writer: v.id("writer")}
		for i, f := range v.list("fields") {
			g.Fields = append(g.Fields, writing.Field{Field: policies.Field(f), Epoch: binary.BigEndian.Uint64(v.list("epochs")[i])})
		}
		return outputs{"info": g.Info()}, nil
	},
	"hpke-import.json open": func(v *values) (outputs, error) {
		plaintext, err := pre.NewBlobKey(v.id("seed")).Open(v.bytes("info"), v.bytes("blob"))
		return outputs{"plaintext": plaintext}, err
	},
	"session-key.json open": func(v *values) (outputs, error) {
		return v.openSealed((*pre.SessionKey).OpenAnswer, (*pre.SessionKey).SealAnswer)
	},
	"open-evidence": func(v *values) (outputs, error) {
		return v.openSealed((*pre.SessionKey).OpenEvidence, (*pre.SessionKey).SealEvidence)
	},
	"answer": func(v *values) (outputs, error) {
		answer, err := pre.NewLoginKey(v.id("seed")).Answer(v.challenge())
		return outputs{"answer": answer[:]}, err
	},
	"verify": func(v *values) (outputs, error) {
		ct, secret, err := pre.NewChallenge(v.bytes("public"), v.random())
		if err != nil || !bytes.Equal(ct, v.bytes("ct")) {
			return nil, errors.New("the challenge differs")
		}
		return nil, secret.Verify(v.challenge(), v.bytes("answer"))
	},
	"tree": func(v *values) (outputs, error) {
		var leaves []policies.Leaf
		for _, b := range v.list("leaves") {
			l, err := policies.ParseLeaf(b)
			if err != nil {
				return nil, err
			}
			leaves = append(leaves, l)
		}
		tree, err := policies.NewTree(leaves)
		if err != nil {
			return nil, err
		}
		root := tree.Root()
		proofs := []any{}
		for i := range tree.Size() {
			p, err := tree.Prove(i)
			if err != nil {
				return nil, err
			}
			if err := p.Verify(tree.Leaves()[i].Hash(), tree.Size(), root); err != nil {
				return nil, err
			}
			path := []string{}
			for _, h := range p.Path {
				path = append(path, h.String())
			}
			proofs = append(proofs, path)
		}
		return outputs{"root": root[:], "proofs": proofs}, nil
	},
	"merkle.json verify": func(v *values) (outputs, error) {
		p := policies.Proof{Index: v.num("index")}
		for _, h := range v.list("path") {
			p.Path = append(p.Path, policies.Hash(h))
		}
		return nil, p.Verify(v.leaf().Hash(), v.num("size"), v.id("root"))
	},
	"size": func(v *values) (outputs, error) {
		length := int(v.num("length"))
		size := pre.CiphertextSize(length)
		if size == 0 {
			k, err := pre.ParseRoot(ownerRoot)
			if err != nil {
				return nil, err
			}
			a, err := k.FieldKey(policies.Slot{Owner: policies.OwnerID(ownerID), Field: "a", Epoch: 1, Author: policies.AuthorID(ownerID)})
			if err != nil {
				return nil, err
			}
			_, _, err = a.Seal(1, make([]byte, length), nil)
			return nil, err
		}
		return outputs{"padded": size - 16, "ciphertext": size}, nil
	},
	"composite-verify": func(v *values) (outputs, error) {
		e, err := envelope.Parse([]byte(envelopeText(v.str("type"), v.bytes("payload"), v.bytes("signature"))))
		if err != nil {
			return nil, err
		}
		key, err := envelope.ParsePublicKey(v.bytes("public"))
		if err != nil {
			return nil, err
		}
		if seed, ok := v.m["seed"]; ok {
			b, err := hex.DecodeString(seed.(string))
			if err != nil || !bytes.Equal(envelope.NewPrivateKey((*[64]byte)(b)).Public().Bytes(), key.Bytes()) {
				return nil, errors.New("the seed gives another public key")
			}
		}
		return outputs{"message": dsse.PAE("application/vnd.sallyport."+v.str("type")+".v1+json", v.bytes("payload"))}, e.Verify(key)
	},
	"answer.json parse": func(v *values) (outputs, error) {
		a, err := policies.ParseAnswer(v.bytes("answer"))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(a.Bytes(), v.bytes("answer")) {
			return nil, errors.New("written back, the answer differs")
		}
		items := []any{}
		for _, it := range a.Items {
			items = append(items, text(outputs{"outcome": string(it.Outcome), "x": it.X[:], "leaf_hash": it.Leaf[:], "head": it.Head[:], "version": it.Version, "index": it.Index, "accepted": it.Accepted}))
		}
		return outputs{"time": a.Time, "items": items}, nil
	},
	"envelope": func(v *values) (outputs, error) {
		raw := []byte(nil)
		if _, ok := v.m["envelope_hex"]; ok {
			raw = v.bytes("envelope_hex")
		} else {
			raw = []byte(v.str("envelope"))
		}
		e, err := envelope.Parse(raw)
		if err != nil {
			return nil, err
		}
		key, err := envelope.ParsePublicKey(v.bytes("public"))
		if err != nil {
			return nil, err
		}
		if err := e.Verify(key); err != nil {
			return nil, err
		}
		if _, err := policies.Decode[policies.Manifest](e); err != nil {
			return nil, err
		}
		return outputs{"type": e.Type, "payload": string(e.Payload), "hash": e.Hash[:]}, nil
	},
	"payload":   payloadOperation,
	"successor": successorOperation,
	"document":  documentOperation,
	"receipt":   receiptOperation,
	"entry":     entryOperation,
	"evidence":  evidenceOperation,
}

// openSealed opens what the vault said under K, and seals it again.
func (v *values) openSealed(open func(*pre.SessionKey, policies.Hash, []byte) ([]byte, error), seal func(*pre.SessionKey, policies.Hash, []byte, io.Reader) ([]byte, error)) (outputs, error) {
	secret, err := pre.NewVaultKey(v.id("seed")).Decapsulate(v.bytes("ct"))
	if err != nil {
		return nil, err
	}
	plaintext, err := open(secret.Key(v.id("vault"), v.id("reader"), v.id("session")), v.id("request"), v.bytes("answer"))
	if err != nil {
		return nil, err
	}
	ct, other, err := pre.EncapsulateSession(v.bytes("public"), v.random())
	if err != nil || !bytes.Equal(ct, v.bytes("ct")) {
		return nil, errors.New("the encapsulation differs")
	}
	sealed, err := seal(other.Key(v.id("vault"), v.id("reader"), v.id("session")), v.id("request"), plaintext, bytes.NewReader(v.bytes("answer_nonce")))
	if err == nil && !bytes.Equal(sealed, v.bytes("answer")) {
		err = errors.New("the sealed answer differs")
	}
	return outputs{"plaintext": plaintext}, err
}

func (v *values) challenge() *pre.Challenge {
	return &pre.Challenge{Server: v.str("server"), Subject: v.id("subject"), Ciphertext: v.bytes("ct"), Nonce: policies.Nonce(v.bytes("nonce")), FreshKey: v.id("fresh_key")}
}

func grantOperation(v *values) (outputs, error) {
	ct, secret, err := pre.NewGrantSecret(v.readerKey().Public(), v.random())
	if err != nil {
		return nil, err
	}
	k, err := v.root("root").FieldKey(v.slot())
	if err != nil {
		return nil, err
	}
	rk, err := secret.ReEncryptionKey(v.id("grant"), v.id("reader"), k)
	if err != nil {
		return nil, err
	}
	opened, err := v.readerKey().OpenGrant(ct)
	if err != nil {
		return nil, err
	}
	again, err := opened.ReEncryptionKey(v.id("grant"), v.id("reader"), k)
	if err != nil || !bytes.Equal(again.PKCS8(), rk.PKCS8()) {
		return nil, errors.New("the decapsulated secret differs")
	}
	return outputs{"ct": ct, "pkcs8": rk.PKCS8(), "rk": slices.Clone(rk.PKCS8()[35:])}, nil
}
