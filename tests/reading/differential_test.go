package reading

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/vault/pre"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the mutations; 0: a fresh one, which is logged")
	countFlag = flag.Int("mutations", 200, "mutations of each kind of input")
)

// trial sets one input before both readings. goReads returns an error where the first reading refuses; js asks the second.
type trial struct {
	name   string
	base   []byte                                     // what is mutated
	mutate func(r *mathrand.Rand, base []byte) []byte // nil: damage
	goRead func(data []byte) error
	js     func(data []byte) request
	same   func(data []byte, out json.RawMessage) error // where both accept: do they read the same?
	share  int                                          // one of so many mutations, where each is slow
}

// TestMutations: whatever is done to what is valid, both readings accept it or both refuse it, and read the same where they accept.
func TestMutations(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = mathrand.Uint64()
	}
	t.Logf("go test ./tests/reading -run TestMutations -seed %d -mutations %d", seed, *countFlag)
	p := open(t)
	v := newVaultSide(t)
	w := newGoWorld(t, v)
	var trials []trial
	trials = append(trials, documentTrials(w)...)
	trials = append(trials, itemTrials(t, w)...)
	trials = append(trials, sealedTrials(t, v, w)...)
	trials = append(trials, logTrials(t, w)...)
	trials = append(trials, linkTrials(w)...)
	trials = append(trials, valueTrials()...)

	var ran, accepted, refused int
	for i, x := range trials {
		t.Run(x.name, func(t *testing.T) {
			r := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
			if x.mutate == nil {
				x.mutate = damage
			}
			x.share = max(1, x.share)
			for n := range (*countFlag+x.share-1)/x.share + 1 {
				data := x.base // unchanged it must be accepted
				if n > 0 {
					data = x.mutate(r, x.base)
				}
				ran++
				err := x.goRead(data)
				got := p.ask(t, x.js(data))
				switch {
				case n == 0 && (err != nil || got.Expect != "ok"):
					t.Fatalf("unchanged: Go says %v, JavaScript %s %s", err, got.Expect, got.Why)
				case (err == nil) != (got.Expect == "ok"):
					t.Errorf("mutation %d: Go says %v, JavaScript %s %s, of\n%.2000q", n, err, got.Expect, got.Why, difference(x.base, data))
				case err == nil && x.same != nil:
					if err := x.same(data, got.Out); err != nil {
						t.Errorf("mutation %d: both accept, and read differently: %v, of\n%.2000q", n, err, difference(x.base, data))
					}
					fallthrough
				case err == nil:
					accepted++
				default:
					refused++
				}
			}
		})
	}
	t.Logf("%d inputs: both accepted %d, both refused %d", ran, accepted, refused)
	if accepted == 0 || refused < ran/4 {
		t.Error("these mutations say little: too few accepted or too few refused")
	}
}

// difference is the part of data that base has not, with what stands around it.
func difference(base, data []byte) []byte {
	a, z := 0, 0
	for a < min(len(base), len(data)) && base[a] == data[a] {
		a++
	}
	for z < min(len(base), len(data))-a && base[len(base)-1-z] == data[len(data)-1-z] {
		z++
	}
	return data[max(0, a-40):min(len(data), len(data)-z+40)]
}

// decode reads a payload as a document of its type.
func decode[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](docType string) func(payload []byte) (any, error) {
	return func(payload []byte) (any, error) {
		d, err := policies.Decode[T, D](&envelope.Envelope{Type: docType, Payload: payload})
		return d, err
	}
}

var decoders = map[string]func([]byte) (any, error){
	"identity": decode[policies.Identity]("identity"), "vault": decode[policies.VaultDocument]("vault"), "relationship": decode[policies.Relationship]("relationship"),
	"manifest": decode[policies.Manifest]("manifest"), "grant": decode[policies.Grant]("grant"), "revocation": decode[policies.Revocation]("revocation"),
	"session": decode[policies.Session]("session"), "read": decode[policies.ReadRequest]("read"), "evidence": decode[policies.EvidenceRequest]("evidence"),
	"audit-query": decode[policies.AuditQuery]("audit-query"), "closure": decode[policies.Closure]("closure"), "suspension": decode[succession.Suspension]("suspension"),
	"succession-notice": decode[succession.Notice]("succession-notice"), "renunciation": decode[succession.Renunciation]("renunciation"),
	"domain-statement": decode[names.Statement]("domain-statement"),
}

// either damages bytes or mangles JSON.
func either(r *mathrand.Rand, text []byte) []byte {
	if r.IntN(4) == 0 {
		return damage(r, text)
	}
	return mangle(r, text)
}

func documentTrials(w *goWorld) (out []trial) {
	for docType, read := range decoders {
		d := w.documents[docType]
		out = append(out, trial{
			name: "payload of " + docType, base: d.envelope.Payload, mutate: either,
			goRead: func(data []byte) error { _, err := read(data); return err },
			js: func(data []byte) request {
				return operation("document-"+docType, "payload", "type", docType, "payload_hex", data)
			},
			same: func(data []byte, raw json.RawMessage) error {
				var js struct{ Document string }
				if err := json.Unmarshal(raw, &js); err != nil {
					return err
				}
				ours, err := read(data)
				if err != nil {
					return err
				}
				theirs, err := read([]byte(js.Document))
				if err != nil {
					return fmt.Errorf("what JavaScript writes: %w", err)
				}
				a, _ := json.Marshal(ours)
				if b, _ := json.Marshal(theirs); !bytes.Equal(bytes.ReplaceAll(a, []byte(":null"), []byte(`:""`)), bytes.ReplaceAll(b, []byte(":null"), []byte(`:""`))) {
					return fmt.Errorf("%.300s and %.300s", a, b)
				}
				return nil
			},
		}, trial{
			name: "envelope of " + docType, base: d.envelope.Raw, mutate: either, share: 4,
			goRead: func(data []byte) error {
				e, err := envelope.Parse(data)
				if err != nil {
					return err
				}
				var key envelope.Verifier = envelope.SessionPublicKey(d.public[:32])
				if docType != "read" && docType != "evidence" {
					if key, err = envelope.ParsePublicKey(d.public); err != nil {
						return err
					}
				}
				if err := e.Verify(key); err != nil {
					return err
				}
				if e.Type != docType {
					return policies.ErrMalformed
				}
				_, err = read(e.Payload)
				return err
			},
			js: func(data []byte) request {
				return operation("document-"+docType, "document", "type", docType, "envelope_hex", data, "public", d.public)
			},
		})
	}
	return out
}

// outBytes compares one output in hexadecimal with what Go reads.
func outBytes(name string, read func(data []byte) ([]byte, error)) func([]byte, json.RawMessage) error {
	return func(data []byte, raw json.RawMessage) error {
		var js map[string]any
		if err := json.Unmarshal(raw, &js); err != nil {
			return err
		}
		ours, err := read(data)
		if err == nil && js[name] != hex.EncodeToString(ours) {
			err = fmt.Errorf("%s is %x and %v", name, ours, js[name])
		}
		return err
	}
}

// fail is read without what it read.
func fail(read func([]byte) ([]byte, error)) func([]byte) error {
	return func(data []byte) error { _, err := read(data); return err }
}

func itemTrials(t *testing.T, w *goWorld) []trial {
	l := w.leaves[1]
	key := need(w.owner.root.FieldKey(l.Slot))(t)
	ciphertext := w.ciphertexts[l.Field]
	own := []any{"root", w.owner.root.Bytes(), "owner", l.Owner, "field", string(l.Field), "author", l.Author, "epoch", l.Epoch}
	rk := need(w.secret.ReEncryptionKey(w.grantID, policies.ReaderID(w.reader.id), key))(t)
	x := need(pre.Reencrypt(rk, &l.Capsule))(t)

	leafHash := func(data []byte) ([]byte, error) {
		l, err := policies.ParseLeaf(data)
		hash := l.Hash()
		return hash[:], err
	}
	openLeaf := func(data []byte) ([]byte, error) {
		l, err := policies.ParseLeaf(data)
		if err != nil {
			return nil, err
		}
		return key.Open(&l, ciphertext)
	}
	openCiphertext := func(data []byte) ([]byte, error) { return key.Open(&l, data) }
	// Of the wrong length it is no x, ct or capsule; the types of the first reading say so.
	released := func(ct, x []byte) ([]byte, error) {
		if len(x) != 32 {
			return nil, pre.ErrOpen
		}
		secret, err := w.kem.OpenGrant(ct)
		if err != nil {
			return nil, err
		}
		return secret.Open(w.grantID, policies.ReaderID(w.reader.id), &l, [32]byte(x), ciphertext)
	}
	releasedX := func(data []byte) ([]byte, error) { return released(w.ct, data) }
	releasedCT := func(data []byte) ([]byte, error) { return released(data, x[:]) }
	readers := func(more ...any) request {
		return operation("reencrypt", "open", append([]any{"reader_root", w.reader.root.Bytes(), "owner", l.Owner, "nonce", w.nonce, "grant", w.grantID, "reader", w.reader.id,
			"leaf", l.Bytes(), "ciphertext", ciphertext}, more...)...)
	}
	point := func(data []byte) ([]byte, error) {
		c := l.Capsule
		copy(c[:33], data)
		out, err := pre.Decompress(&c)
		return out[:], err
	}
	reencrypt := func(data []byte) ([]byte, error) {
		c := l.Capsule
		copy(c[:33], data)
		out, err := pre.Reencrypt(rk, &c)
		return out[:], err
	}
	withE := func(data []byte) []byte { return append(bytes.Clone(data), l.Capsule[33:]...) }
	// A random x is one of a point half of the time.
	newE := func(r *mathrand.Rand, base []byte) []byte {
		out := bytes.Clone(base)
		for range 1 + r.IntN(3) {
			out[r.IntN(33)] = byte(r.Uint32())
		}
		if r.IntN(3) > 0 {
			out[0] = 2 + byte(r.IntN(2))
		}
		return out
	}
	wrapped := func(data []byte) ([]byte, error) {
		k, err := pre.ParseReEncryptionKey(data)
		if err != nil {
			return nil, err
		}
		return k.PKCS8()[35:], nil
	}
	proof := need(need(policies.NewTree(w.leaves))(t).Prove(2))(t)
	tree := need(policies.NewTree(w.leaves))(t)
	path := func(data []byte) (p policies.Proof, ok bool) {
		if len(data) < 8 || len(data[8:])%32 != 0 {
			return p, false
		}
		for i := range 8 {
			p.Index = p.Index<<8 | uint64(data[i])
		}
		for rest := data[8:]; len(rest) > 0; rest = rest[32:] {
			p.Path = append(p.Path, policies.Hash(rest[:32]))
		}
		return p, true
	}
	flat := policies.U64(proof.Index)
	for _, h := range proof.Path {
		flat = append(flat, h[:]...)
	}
	root := tree.Root()
	leafRequest := func(data []byte) request { return operation("leaf", "parse", "leaf", data) }
	return []trial{
		{name: "leaf", base: l.Bytes(), goRead: fail(leafHash), js: leafRequest, same: outBytes("leaf_hash", leafHash)},
		{name: "leaf of an item", base: l.Bytes(), goRead: fail(openLeaf), same: outBytes("value", openLeaf),
			js: func(data []byte) request {
				return operation("item", "open", append(own, "ciphertext", ciphertext, "leaf", data)...)
			}},
		{name: "ciphertext of an item", base: ciphertext, goRead: fail(openCiphertext), same: outBytes("value", openCiphertext),
			js: func(data []byte) request {
				return operation("item", "open", append(own, "ciphertext", data, "leaf", l.Bytes())...)
			}},
		{name: "x of a reader", base: x[:], goRead: fail(releasedX), js: func(data []byte) request { return readers("ct", w.ct, "x", data) }, same: outBytes("value", releasedX)},
		{name: "ct of a grant", base: w.ct, goRead: fail(releasedCT), js: func(data []byte) request { return readers("ct", data, "x", x[:]) }, same: outBytes("value", releasedCT)},
		{name: "E", base: l.Capsule.E(), mutate: newE, goRead: fail(point), same: outBytes("point", point),
			js: func(data []byte) request { return operation("reencrypt", "decompress", "capsule", withE(data)) }},
		{name: "E under a key", base: l.Capsule.E(), mutate: newE, goRead: fail(reencrypt), same: outBytes("x", reencrypt),
			js: func(data []byte) request {
				return operation("reencrypt", "reencrypt", "pkcs8", rk.PKCS8(), "capsule", withE(data))
			}},
		{name: "PKCS#8", base: rk.PKCS8(), goRead: fail(wrapped), same: outBytes("scalar", wrapped), js: func(data []byte) request { return operation("pkcs8", "parse", "pkcs8", data) }},
		{name: "proof", base: flat,
			goRead: func(data []byte) error {
				p, ok := path(data)
				if !ok {
					return policies.ErrProof
				}
				return p.Verify(tree.Leaves()[2].Hash(), tree.Size(), root)
			},
			js: func(data []byte) request {
				p, ok := path(data)
				if !ok {
					return operation("leaf", "parse", "leaf", []byte{}) // refused
				}
				hashes := make([][]byte, len(p.Path))
				for i := range p.Path {
					hashes[i] = p.Path[i][:]
				}
				return operation("merkle", "verify", "leaf", tree.Leaves()[2].Bytes(), "index", p.Index, "size", tree.Size(), "root", root[:], "path", hashes)
			}},
	}
}

func sealedTrials(t *testing.T, v *vaultSide, w *goWorld) []trial {
	kemSeed, loginSeed := w.reader.root.KEMSeed(), w.owner.root.LoginSeed()
	info := need(pre.MessageInfo("consent", w.owner.id, w.reader.id))(t)
	key := pre.NewBlobKey(kemSeed)
	blob := need(pre.SealBlob(key.Public(), info, []byte("may I?")))(t)
	openBlob := func(data []byte) ([]byte, error) { return key.Open(info, data) }

	// JavaScript opens answers by K, which only it gives out: take one that it made.
	p := open(t)
	theirs := makeWorld(t, p, v, "SHA-1")
	_, readerID, err := policies.OpenIdentity(need(envelope.Parse(theirs.Documents["reader"]))(t))
	must(t, err)
	e := need(envelope.Parse(theirs.Documents["session"]))(t)
	session := need(policies.Decode[policies.Session](e))(t)
	k := need(v.session.Decapsulate(session.Ciphertext))(t).Key(theirs.Vault, policies.ReaderID(readerID), e.Hash)
	request32 := policies.Hash(random32())
	answer := &policies.Answer{Time: made * 1000, Items: []policies.AnswerItem{
		{Outcome: policies.CodeReleased, X: random32(), Leaf: random32(), Head: random32(), Version: 9, Index: 1 << 60, Accepted: 1 << 59}, {Outcome: policies.CodeRevoked}, {},
	}}
	plaintext := answer.Bytes()
	sealed := need(k.SealAnswer(request32, plaintext, nil))(t)
	openAnswer := func(data []byte) ([]byte, error) { return k.OpenAnswer(request32, data) }

	login := pre.NewLoginKey(loginSeed)
	ct, _, err := pre.NewChallenge(login.Public(), nil)
	must(t, err)
	c := pre.Challenge{Server: "store.example:443", Subject: w.owner.id, Nonce: policies.NewNonce(), FreshKey: random32()}
	answerLogin := func(data []byte) ([]byte, error) {
		c := c
		c.Ciphertext = data
		mac, err := login.Answer(&c)
		return mac[:], err
	}
	public := key.Public()
	return []trial{
		{name: "blob", base: blob, goRead: fail(openBlob), same: outBytes("plaintext", openBlob),
			js: func(data []byte) request {
				return operation("hpke-import", "open", "seed", kemSeed[:], "info", info, "blob", data)
			}},
		{name: "sealed answer", base: sealed, goRead: fail(openAnswer), same: outBytes("plaintext", openAnswer),
			js: func(data []byte) request {
				return operation("make", "open-answer", "K", []byte(theirs.K), "request", request32, "answer", data)
			}},
		{name: "answer", base: plaintext,
			goRead: func(data []byte) error { _, err := policies.ParseAnswer(data); return err },
			js:     func(data []byte) request { return operation("answer", "parse", "answer", data) },
			same: func(data []byte, raw json.RawMessage) error {
				var js struct {
					Time  string
					Items []struct {
						Outcome, X, Leaf_hash, Head, Version, Index, Accepted string
					}
				}
				if err := json.Unmarshal(raw, &js); err != nil {
					return err
				}
				a, err := policies.ParseAnswer(data)
				if err != nil || len(a.Items) != len(js.Items) || fmt.Sprint(a.Time) != js.Time {
					return fmt.Errorf("%v and %v, %v", a, js, err)
				}
				for i, it := range a.Items {
					if h := js.Items[i]; h.Leaf_hash != it.Leaf.String() || h.Head != it.Head.String() || h.X != hex.EncodeToString(it.X[:]) || h.Index != fmt.Sprint(it.Index) || h.Accepted != fmt.Sprint(it.Accepted) || h.Version != fmt.Sprint(it.Version) {
						return fmt.Errorf("item %d: %v and %v", i, it, h)
					}
				}
				return nil
			}},
		{name: "ct of a challenge", base: ct, goRead: fail(answerLogin), same: outBytes("answer", answerLogin), js: func(data []byte) request {
			return operation("make", "answer-login", "server", c.Server, "subject", c.Subject, "nonce", c.Nonce, "fresh_key", c.FreshKey[:], "seed", loginSeed[:], "ct", data)
		}},
		{name: "X-Wing public key", base: public, share: 2,
			// Half of the mutations lie in the X25519 part, among them the points of small order.
			mutate: func(r *mathrand.Rand, base []byte) []byte {
				if r.IntN(2) == 0 {
					return damage(r, base)
				}
				point := need(hex.DecodeString(smallOrder[r.IntN(len(smallOrder))]))(t)
				return append(bytes.Clone(base[:len(base)-32]), point...)
			},
			goRead: func(data []byte) error { _, _, err := pre.NewGrantSecret(data, nil); return err },
			js:     func(data []byte) request { return operation("grant-kem", "encapsulate", "public", data) }},
		{name: "X25519 part of a ct", base: ct, share: 4,
			mutate: func(r *mathrand.Rand, base []byte) []byte {
				return append(bytes.Clone(base[:len(base)-32]), need(hex.DecodeString(smallOrder[r.IntN(len(smallOrder))]))(t)...)
			},
			goRead: fail(answerLogin), same: outBytes("answer", answerLogin), js: func(data []byte) request {
				return operation("make", "answer-login", "server", c.Server, "subject", c.Subject, "nonce", c.Nonce, "fresh_key", c.FreshKey[:], "seed", loginSeed[:], "ct", data)
			}},
		ed25519Trial(t, w),
	}
}

// smallOrder are points of X25519 and Ed25519 that readers like to disagree on: of small order, and encodings of p or more.
var smallOrder = []string{
	strings.Repeat("00", 32),
	"01" + strings.Repeat("00", 31),
	"01" + strings.Repeat("00", 30) + "80",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ec" + strings.Repeat("ff", 30) + "7f",
	"ed" + strings.Repeat("ff", 30) + "7f",
	"ee" + strings.Repeat("ff", 30) + "7f",
	"ec" + strings.Repeat("ff", 31),
	"ed" + strings.Repeat("ff", 31),
	"ee" + strings.Repeat("ff", 31),
	strings.Repeat("ff", 32),
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}

// ed25519Trial signs read requests and puts points of small order, encodings that are not the one, and s + L in place of the real ones.
func ed25519Trial(t *testing.T, w *goWorld) trial {
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	payload := w.documents["read"].envelope.Payload
	payloadType := "application/vnd.sallyport.read.v1+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	base := append(bytes.Clone(public), ed25519.Sign(private, pae)...)
	order := need(hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010"))(t)
	raw := func(data []byte) []byte {
		return need(json.Marshal(map[string]any{"payloadType": payloadType, "payload": payload, "signatures": []any{map[string]any{"sig": data[32:]}}}))(t)
	}
	return trial{
		name: "Ed25519 key and signature", base: base,
		mutate: func(r *mathrand.Rand, base []byte) []byte {
			out := bytes.Clone(base)
			pick := func() []byte { return need(hex.DecodeString(smallOrder[r.IntN(len(smallOrder))]))(t) }
			switch r.IntN(4) {
			case 0: // s + L
				carry := 0
				for i := range 32 {
					carry += int(out[64+i]) + int(order[i])
					out[64+i], carry = byte(carry), carry>>8
				}
			case 1: // a key of small order signs anything: R = A' and s = 0
				copy(out, pick())
				copy(out[32:], pick())
				clear(out[64:])
			case 2:
				copy(out[32:], pick())
			case 3:
				out[r.IntN(len(out))] ^= 1 << r.IntN(8)
			}
			return out
		},
		goRead: func(data []byte) error {
			e, err := envelope.Parse(raw(data))
			if err != nil {
				return err
			}
			return e.Verify(envelope.SessionPublicKey(data[:32]))
		},
		js: func(data []byte) request {
			return operation("document-read", "document", "type", "read", "envelope", string(raw(data)), "public", data[:32])
		},
	}
}

// logWorld is a key-use log of a few entries, with receipts as a vault makes them.
type logWorld struct {
	name    string
	public  ed25519.PublicKey
	signer  note.Signer
	hashes  []tlog.Hash
	leaves  [][]byte
	opening []evidence.Opening
}

// ReadHashes is tlog.HashReader.
func (l *logWorld) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i := range at {
		out[i] = l.hashes[at[i]]
	}
	return out, nil
}

func newLogWorld(t *testing.T, documents []policies.Hash) *logWorld {
	t.Helper()
	l := &logWorld{name: "vault.example/sallyport"}
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	l.public = public
	hash := need(note.NewEd25519VerifierKey(l.name, public))(t)
	keyHash := strings.Split(hash, "+")[1]
	l.signer = need(note.NewSigner("PRIVATE+KEY+" + l.name + "+" + keyHash + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...))))(t)
	for i, d := range documents {
		opening, commitment := evidence.Commit(&evidence.Details{Document: d, Owner: random32(), Version: uint64(i), Purpose: "Lieferung"})
		entry := evidence.Entry{Kind: evidence.EntryManifest, Owner: policies.NewPseudonym(), Outcome: policies.CodeAccepted, Commitment: commitment}
		leaf := append(policies.U64(made*1000+uint64(i)), entry.Bytes()...)
		stored := need(tlog.StoredHashes(int64(i), leaf, l))(t)
		l.hashes, l.leaves, l.opening = append(l.hashes, stored...), append(l.leaves, leaf), append(l.opening, opening)
	}
	return l
}

func (l *logWorld) receipt(t *testing.T, vault policies.VaultID, i int, document policies.Hash) *evidence.Receipt {
	t.Helper()
	size := int64(len(l.leaves))
	root := need(tlog.TreeHash(size, l))(t)
	r := &evidence.Receipt{Type: "receipt", Suite: policies.Suite, Vault: vault, Document: document,
		Evidence: evidence.Evidence{Index: uint64(i), Leaf: l.leaves[i], Opening: l.opening[i]}}
	for _, h := range need(tlog.ProveRecord(size, int64(i), l))(t) {
		r.Evidence.Proof = append(r.Evidence.Proof, policies.Hash(h))
	}
	r.Checkpoint = string(need(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.name, size, root)}, l.signer))(t))
	return r
}

func logTrials(t *testing.T, w *goWorld) []trial {
	documents := make([]policies.Hash, 9)
	for i := range documents {
		documents[i] = random32()
	}
	var out []trial
	for _, size := range []int{1, 9} {
		l := newLogWorld(t, documents[:size])
		i := size / 2
		receipt := l.receipt(t, w.vault, i, documents[i])
		logKey := policies.LogKey{Name: l.name, Algorithm: "Ed25519", PublicKey: l.public}
		document := &policies.VaultDocument{Vault: w.vault, LogKey: logKey}
		read := func(data []byte) error {
			r, err := evidence.ParseReceipt(data)
			if err == nil {
				_, _, _, err = r.Verify(document, documents[i])
			}
			return err
		}
		ask := func(data []byte) request {
			return operation("document-receipt", "receipt", "receipt_hex", data, "vault", w.vault, "document", documents[i], "log_name", l.name, "log_key", []byte(l.public))
		}
		written := func(r *evidence.Receipt) []byte { return need(json.Marshal(r))(t) }
		out = append(out, trial{name: fmt.Sprintf("receipt in a log of %d", size), base: written(receipt), mutate: either, goRead: read, js: ask})

		// The checkpoint inside a receipt, byte by byte.
		checkpoint := func(text []byte) []byte {
			r := *receipt
			r.Checkpoint = strings.ToValidUTF8(string(text), "?")
			return written(&r)
		}
		lines := func(r *mathrand.Rand, base []byte) []byte {
			if r.IntN(2) == 0 {
				return damage(r, base)
			}
			parts := strings.SplitAfter(string(base), "\n")
			at := r.IntN(len(parts))
			extra := []string{"\n", "x\n", parts[len(parts)-2], "— other.example " + base64.StdEncoding.EncodeToString(make([]byte, 68)) + "\n", "— x\n", "- x AAAAAAA=\n", "—  AAAAAAA=\n", "— a+b AAAAAAA=\n"}
			parts[at] = extra[r.IntN(len(extra))] + parts[at]
			return []byte(strings.Join(parts, ""))
		}
		out = append(out, trial{name: fmt.Sprintf("checkpoint of a log of %d", size), base: []byte(receipt.Checkpoint), mutate: lines,
			goRead: func(data []byte) error { return read(checkpoint(data)) }, js: func(data []byte) request { return ask(checkpoint(data)) }})

		// Evidence is the same proof, and an opening may be missing.
		answer := need(json.Marshal(evidence.Answer{Checkpoint: receipt.Checkpoint, Evidence: []evidence.Evidence{receipt.Evidence}, Absent: []uint64{1, 1 << 60}, Before: 3}))(t)
		out = append(out, trial{name: fmt.Sprintf("evidence in a log of %d", size), base: answer, mutate: either,
			goRead: func(data []byte) error {
				a, err := evidence.ParseAnswer(data)
				if err != nil {
					return err
				}
				c, err := evidence.OpenCheckpoint(a.Checkpoint, logKey)
				for i := 0; i < len(a.Evidence) && err == nil; i++ {
					if _, _, _, err = a.Evidence[i].Verify(c); errors.Is(err, evidence.ErrErased) {
						err = nil
					}
				}
				return err
			},
			js: func(data []byte) request {
				return operation("evidence", "evidence", "answer_hex", data, "log_name", l.name, "log_key", []byte(l.public))
			}})

		// Details and texts of checkpoints that are signed, so that more than the signature is asked.
		out = append(out, trial{name: fmt.Sprintf("signed checkpoint of a log of %d", size), base: []byte(strings.Split(receipt.Checkpoint, "\n\n")[0] + "\n"), mutate: lines,
			goRead: func(data []byte) error { return read(l.signed(receipt, written, data)) }, js: func(data []byte) request { return ask(l.signed(receipt, written, data)) }})
		if size == 1 {
			committed := func(details []byte) []byte {
				opening := evidence.Opening{Salt: policies.NewNonce(), Details: details}
				entry := evidence.Entry{Kind: "kind-of-tomorrow", Outcome: policies.CodeAccepted, Commitment: opening.Commitment()}
				one := *l
				one.hashes, one.leaves, one.opening = nil, [][]byte{append(policies.U64(made*1000), entry.Bytes()...)}, []evidence.Opening{opening}
				one.hashes = need(tlog.StoredHashes(0, one.leaves[0], &one))(t)
				return written(one.receipt(t, w.vault, 0, documents[0]))
			}
			cache := map[string][]byte{} // the same receipt for both
			of := func(data []byte) []byte {
				if cache[string(data)] == nil {
					cache[string(data)] = committed(data)
				}
				return cache[string(data)]
			}
			full := evidence.Details{
				Owner: random32(), Reader: random32(), Identity: random32(), Pseudo: policies.NewPseudonym(), Document: documents[0], Grant: random32(), Field: "iban", Epoch: 1, Author: random32(),
				Version: 1<<64 - 1, Seq: 5, Head: random32(), Leaf: random32(), Session: random32(), Request: random32(), Nonce: policies.NewNonce(), Purpose: "p", Token: "t", Grade: "A", Custody: policies.CustodySealed,
				Expires: made, Decided: made*1000 + 7, Period: 1<<32 - 1, Rules: random32(), Index: 7, Count: 9, Items: []policies.RevokedItem{{Grant: random32(), Field: "a", Author: random32()}}, Note: "n",
				Checks: []byte{1, 2, 3},
			}
			for i := range reflect.TypeOf(full).NumField() { // a member that is new in Go must be new here and in the specification
				if reflect.ValueOf(full).Field(i).IsZero() {
					t.Errorf("Details.%s is not set here: is it in the specification?", reflect.TypeOf(full).Field(i).Name)
				}
			}
			out = append(out, trial{name: "details", base: need(json.Marshal(&full))(t), mutate: either,
				goRead: func(data []byte) error { return read(of(data)) }, js: func(data []byte) request { return ask(of(data)) }})
		}
	}
	return out
}

// signed is a receipt whose checkpoint has another text, well signed where a text can be signed at all.
func (l *logWorld) signed(receipt *evidence.Receipt, written func(*evidence.Receipt) []byte, text []byte) []byte {
	r := *receipt
	body := strings.ToValidUTF8(string(text), "?")
	if !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	msg, err := note.Sign(&note.Note{Text: body}, l.signer)
	if err != nil {
		msg = []byte(body)
	}
	r.Checkpoint = string(msg)
	return written(&r)
}

func linkTrials(w *goWorld) (out []trial) {
	pieces := []string{"&", "=", "?", "#", ";", "%", "%2f", "%zz", "+", "vault=", "id=", "token=", "A", "&x=1", "&nonce=", "sallyport:", "join", "owner", "SALLYPORT:", "//", " ", "\n", "é"}
	mutate := func(r *mathrand.Rand, base []byte) []byte {
		if r.IntN(2) == 0 {
			return damage(r, base)
		}
		at := r.IntN(len(base) + 1)
		return append(append(bytes.Clone(base[:at]), pieces[r.IntN(len(pieces))]...), base[at:]...)
	}
	join := links.Join{Vault: w.vault, Ceremony: random32(), Storefront: "https://store.example", Owners: "https://[::1]:8443/x"}
	for name, link := range map[string]string{
		"join link": join.String(), "owner's code": links.Contact{Role: "owner", ID: w.owner.id, Nonce: w.nonce}.String(), "reader's code": links.Contact{Role: "reader", ID: w.reader.id}.String(),
		"invitation": links.Invite{Reader: w.reader.id, Token: []byte("a token of 19 bytes")}.String(),
	} {
		out = append(out, trial{name: name, base: []byte(link), mutate: mutate,
			goRead: func(data []byte) (err error) {
				switch data = []byte(strings.ToValidUTF8(string(data), "?")); name {
				case "join link":
					_, err = links.ParseJoin(string(data))
				case "invitation":
					_, err = links.ParseInvite(string(data))
				default:
					_, err = links.ParseContact(string(data))
				}
				return err
			},
			js: func(data []byte) request {
				kinds := []string{"owner", "reader"}
				switch name {
				case "join link":
					kinds = []string{"join"}
				case "invitation":
					kinds = []string{"invite"}
				}
				r := operation("make", "link", "link", strings.ToValidUTF8(string(data), "?"))
				r.In.(map[string]any)["kinds"] = kinds
				return r
			}})
	}
	return out
}

func valueTrials() (out []trial) {
	read := func(data []byte) ([]byte, error) {
		v, err := catalogue.Parse(data)
		if err != nil {
			return nil, err
		}
		return v.Bytes()
	}
	for name, text := range map[string]string{
		"text":  `{"v":1,"type":"text","text":"Zoë"}`,
		"list":  `{"v":1,"type":"list","list":["a","b"]}`,
		"parts": `{"v":1,"type":"parts","parts":{"street":["a","b"],"locality":[]},"vcard":{"group":"item1","params":{"TYPE":["home"]}}}`,
	} {
		out = append(out, trial{name: "value: " + name, base: []byte(text), mutate: either, goRead: fail(read),
			js: func(data []byte) request { return operation("make", "value", "value", data) },
			same: func(data []byte, raw json.RawMessage) error {
				var js struct{ Value string }
				if err := json.Unmarshal(raw, &js); err != nil {
					return err
				}
				ours, err := read(data)
				if err != nil {
					return err
				}
				theirs, err := read([]byte(js.Value))
				if err != nil || !bytes.Equal(ours, theirs) {
					return fmt.Errorf("%s and %s, %v", ours, js.Value, err)
				}
				return nil
			}})
	}
	return out
}
