package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
)

func validEntry() Entry {
	return Entry{Kind: EntryUse, Owner: policies.Pseudonym{1}, Reader: policies.Pseudonym{2}, Outcome: policies.CodeReleased, Commitment: policies.Hash{3}}
}

func TestEntryInverse(t *testing.T) {
	for _, e := range []Entry{validEntry(), {Kind: EntryStart}, {Kind: "a kind of later", Outcome: "later"}} {
		data := e.Bytes()
		if back, err := ParseEntry(data); err != nil || back != e {
			t.Fatalf("came back as %+v, %v", back, err)
		}
		for n := range data {
			if _, err := ParseEntry(data[:n]); !errors.Is(err, policies.ErrMalformed) {
				t.Fatalf("cut to %d bytes: got %v, want ErrMalformed", n, err)
			}
		}
		for i := range data {
			if back, err := ParseEntry(flip(data, i)); err == nil && back == e {
				t.Errorf("byte %d changed makes no difference", i)
			}
		}
	}
	e := validEntry()
	for name, data := range map[string][]byte{
		"no kind":          policies.Encode("entry", nil, e.Owner[:], e.Reader[:], []byte("x"), e.Commitment[:]),
		"short owner":      policies.Encode("entry", []byte("use"), e.Owner[1:], e.Reader[:], []byte("x"), e.Commitment[:]),
		"long reader":      policies.Encode("entry", []byte("use"), e.Owner[:], filled(17, 1), []byte("x"), e.Commitment[:]),
		"short commitment": policies.Encode("entry", []byte("use"), e.Owner[:], e.Reader[:], []byte("x"), e.Commitment[1:]),
		"a byte more":      append(e.Bytes(), 0),
		"another label":    policies.Encode("leaf", []byte("use"), e.Owner[:], e.Reader[:], []byte("x"), e.Commitment[:]),
	} {
		if _, err := ParseEntry(data); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

// logLeaf is a leaf of the key-use log.
func logLeaf(at time.Time, e Entry) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), e.Bytes()...)
}

func TestLogLeaf(t *testing.T) {
	at := testTime.Add(123 * time.Millisecond).UTC()
	data := logLeaf(at, validEntry())
	if gotAt, got, err := ParseLogLeaf(data); err != nil || !gotAt.Equal(at) || got != validEntry() {
		t.Fatalf("came back as %v, %+v, %v", gotAt, got, err)
	}
	for n := range data {
		if _, _, err := ParseLogLeaf(data[:n]); !errors.Is(err, policies.ErrMalformed) {
			t.Fatalf("cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	late := bytes.Clone(data)
	binary.BigEndian.PutUint64(late, 1<<53+1)
	if _, _, err := ParseLogLeaf(late); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a time beyond reason: got %v, want ErrMalformed", err)
	}
}

func TestBodyInverse(t *testing.T) {
	opening, _ := Commit(&Details{Field: "phone.mobile"})
	for _, b := range []Body{{Opening: opening, Document: []byte("{}")}, {Opening: opening, Document: []byte{}}, {Opening: Opening{Details: []byte{}}, Document: []byte{}}} {
		data := b.Bytes()
		if back, err := ParseBody(data); err != nil || !reflect.DeepEqual(back, b) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
		for n := range data {
			if _, err := ParseBody(data[:n]); !errors.Is(err, policies.ErrMalformed) {
				t.Fatalf("cut to %d bytes: got %v, want ErrMalformed", n, err)
			}
		}
		if _, err := ParseBody(append(data, 0)); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("a byte more: got %v, want ErrMalformed", err)
		}
	}
	for name, data := range map[string][]byte{
		"a length beyond the end": {0xff, 0xff, 0xff, 0xff, 1},
		"short salt":              append([]byte{0, 0, 0, 15}, make([]byte, 15+8)...),
		"long salt":               append([]byte{0, 0, 0, 17}, make([]byte, 17+8)...),
	} {
		if _, err := ParseBody(data); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestOpening(t *testing.T) {
	d := &Details{Owner: testOwner, Field: "phone.mobile", Epoch: 2, Purpose: "delivery", Items: []policies.RevokedItem{{Grant: policies.DocumentID{1}, Field: "a", Author: policies.AuthorID{2}}}}
	o, commitment := Commit(d)
	if o.Commitment() != commitment {
		t.Fatal("the opening does not open its own commitment")
	}
	if back, err := o.Read(); err != nil || !reflect.DeepEqual(back, d) {
		t.Fatalf("came back as %+v, %v", back, err)
	}
	if _, again := Commit(d); again == commitment {
		t.Error("the same details have the same commitment twice: no salt")
	}
	for i := range o.Details {
		if (&Opening{o.Salt, flip(o.Details, i)}).Commitment() == commitment {
			t.Errorf("byte %d of the details is not committed to", i)
		}
	}
	for i := range o.Salt {
		if (&Opening{policies.Nonce(flip(o.Salt[:], i)), o.Details}).Commitment() == commitment {
			t.Errorf("byte %d of the salt is not committed to", i)
		}
	}
	for _, bad := range []string{``, `{`, `{"more":1}`, `{"field":"a","field":"a"}`, `{"Field":"a"}`, `{} {}`, `{"owner":"00"}`, `[]`} {
		if _, err := (&Opening{Details: []byte(bad)}).Read(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", bad, err)
		}
	}
}

// testLog is a key-use log in memory.
type testLog struct {
	name     string
	private  ed25519.PrivateKey
	hashes   reference
	leaves   [][]byte
	openings []Opening
}

func newTestLog(seed byte) *testLog {
	return &testLog{name: "vault.example/log", private: ed25519.NewKeyFromSeed(filled(32, seed))}
}

func (l *testLog) key() policies.LogKey {
	return policies.LogKey{Name: l.name, Algorithm: "Ed25519", PublicKey: l.private.Public().(ed25519.PublicKey)}
}

func (l *testLog) append(outcome policies.Code, d *Details) uint64 {
	// A fixed salt: a fuzz target runs in several processes, which must agree on the log.
	opening := Opening{Salt: policies.Nonce{0xaa, byte(len(l.leaves))}, Details: must(json.Marshal(d))}
	commitment := opening.Commitment()
	leaf := logLeaf(testTime, Entry{Kind: EntryGrant, Owner: policies.Pseudonym{1}, Outcome: outcome, Commitment: commitment})
	index := int64(len(l.leaves))
	l.hashes = append(l.hashes, must(tlog.StoredHashes(index, leaf, l.hashes))...)
	l.leaves, l.openings = append(l.leaves, leaf), append(l.openings, opening)
	return uint64(index)
}

// sign makes a signed note of any text.
func (l *testLog) sign(text string) string {
	key := must(note.NewEd25519VerifierKey(l.name, l.private.Public().(ed25519.PublicKey)))
	hash := strings.Split(key, "+")[1]
	signer := must(note.NewSigner("PRIVATE+KEY+" + l.name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, l.private.Seed()...))))
	return string(must(note.Sign(&note.Note{Text: text}, signer)))
}

func (l *testLog) root(size int) tlog.Hash { return must(tlog.TreeHash(int64(size), l.hashes)) }

func (l *testLog) checkpoint(size int) string {
	root := l.root(size)
	return l.sign(fmt.Sprintf("%s\n%d\n%s\n", l.name, size, base64.StdEncoding.EncodeToString(root[:])))
}

func (l *testLog) evidence(index uint64, size int) Evidence {
	e := Evidence{Index: index, Leaf: bytes.Clone(l.leaves[index]), Opening: l.openings[index]}
	for _, h := range must(tlog.ProveRecord(int64(size), int64(index), l.hashes)) {
		e.Proof = append(e.Proof, policies.Hash(h))
	}
	return e
}

// The log of the receipt tests: seven entries, of which number 3 is the acceptance of document {0xd0}.
func receiptFixture() (*testLog, *policies.VaultDocument, func() *Receipt) {
	l := newTestLog(1)
	for i := range 7 {
		outcome := policies.CodeAccepted
		if i == 5 {
			outcome = policies.CodeNoGrant
		}
		l.append(outcome, &Details{Owner: testOwner, Document: policies.Hash{0xd0, 3 - byte(i)}})
	}
	v := validVault()
	v.LogKey = l.key()
	return l, v, func() *Receipt {
		return &Receipt{Type: "receipt", Suite: policies.Suite, Vault: testVault, Document: policies.Hash{0xd0, 0}, Evidence: l.evidence(3, 7), Checkpoint: l.checkpoint(7)}
	}
}

func TestReceiptVerify(t *testing.T) {
	l, v, valid := receiptFixture()
	document := policies.Hash{0xd0}
	at, entry, details, err := valid().Verify(v, document)
	if err != nil || !at.Equal(testTime) || entry.Outcome != policies.CodeAccepted || details.Document != document {
		t.Fatalf("got %v, %+v, %+v, %v", at, entry, details, err)
	}
	// Over the wire and back.
	r, err := ParseReceipt(must(json.Marshal(valid())))
	if err != nil || !reflect.DeepEqual(r, valid()) {
		t.Fatalf("came back as %+v, %v", r, err)
	}

	forger := newTestLog(2)
	for i := range l.leaves {
		forger.append(policies.CodeAccepted, &Details{Document: policies.Hash{0xd0, 3 - byte(i)}})
	}
	sixRoot := l.root(6)
	for _, c := range []struct {
		name  string
		spoil func(r *Receipt)
		want  error
	}{
		{"a bit of the leaf", func(r *Receipt) { r.Evidence.Leaf[20] ^= 1 }, policies.ErrProof},
		{"the time in the leaf", func(r *Receipt) { r.Evidence.Leaf[7] ^= 1 }, policies.ErrProof},
		{"another leaf", func(r *Receipt) { r.Evidence.Leaf = l.leaves[2] }, policies.ErrProof},
		{"no leaf", func(r *Receipt) { r.Evidence.Leaf = nil }, policies.ErrProof},
		{"another index", func(r *Receipt) { r.Evidence.Index = 2 }, policies.ErrProof},
		{"an index outside", func(r *Receipt) { r.Evidence.Index = 7 }, policies.ErrProof},
		{"a huge index", func(r *Receipt) { r.Evidence.Index = 1<<64 - 1 }, policies.ErrProof},
		{"a bit of the proof", func(r *Receipt) { r.Evidence.Proof[0][0] ^= 1 }, policies.ErrProof},
		{"proof cut", func(r *Receipt) { r.Evidence.Proof = r.Evidence.Proof[1:] }, policies.ErrProof},
		{"proof longer", func(r *Receipt) { r.Evidence.Proof = append(r.Evidence.Proof, policies.Hash{}) }, policies.ErrProof},
		{"another entry's opening", func(r *Receipt) { r.Evidence.Opening = l.openings[2] }, policies.ErrProof},
		{"another salt", func(r *Receipt) { r.Evidence.Opening.Salt = policies.NewNonce() }, policies.ErrProof},
		{"other details", func(r *Receipt) { r.Evidence.Opening.Details = l.openings[2].Details }, policies.ErrProof},
		{"no opening", func(r *Receipt) { r.Evidence.Opening = Opening{} }, policies.ErrProof},
		{"a whole entry of another document", func(r *Receipt) { r.Evidence = l.evidence(2, 7) }, policies.ErrProof},
		{"another document claimed", func(r *Receipt) { r.Document = policies.Hash{0xd1} }, policies.ErrProof},
		{"another vault claimed", func(r *Receipt) { r.Vault = policies.VaultID{9} }, policies.ErrProof},
		{"an older checkpoint", func(r *Receipt) { r.Checkpoint = l.checkpoint(6) }, policies.ErrProof},
		{"a checkpoint before the entry", func(r *Receipt) { r.Checkpoint = l.checkpoint(3) }, policies.ErrProof},
		{"the older checkpoint's root at this size", func(r *Receipt) {
			r.Checkpoint = l.sign(fmt.Sprintf("%s\n7\n%s\n", l.name, base64.StdEncoding.EncodeToString(sixRoot[:])))
		}, policies.ErrProof},
		{"a size of 2^64-1", func(r *Receipt) {
			r.Checkpoint = l.sign(fmt.Sprintf("%s\n%d\n%s\n", l.name, uint64(1<<64-1), base64.StdEncoding.EncodeToString(sixRoot[:])))
		}, policies.ErrProof},
		{"another log with the same entries", func(r *Receipt) {
			r.Evidence, r.Checkpoint = forger.evidence(3, 7), forger.checkpoint(7)
		}, policies.ErrSignature},
		{"another log's checkpoint", func(r *Receipt) { r.Checkpoint = forger.checkpoint(7) }, policies.ErrSignature},
		{"no checkpoint", func(r *Receipt) { r.Checkpoint = "" }, policies.ErrSignature},
		{"an unsigned checkpoint", func(r *Receipt) { r.Checkpoint, _, _ = strings.Cut(r.Checkpoint, "\n\n") }, policies.ErrSignature},
		{"another size in the checkpoint", func(r *Receipt) {
			r.Checkpoint = strings.Replace(r.Checkpoint, "\n7\n", "\n8\n", 1)
		}, policies.ErrSignature},
	} {
		r := valid()
		c.spoil(r)
		if _, _, _, err := r.Verify(v, document); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}

	// A refusal in the log, or the acceptance of something else, is no receipt.
	refused := valid()
	refused.Evidence = l.evidence(5, 7)
	refused.Document = must(refused.Evidence.Opening.Read()).Document
	if _, _, _, err := refused.Verify(v, refused.Document); !errors.Is(err, policies.ErrProof) {
		t.Errorf("the entry of a refusal: got %v, want ErrProof", err)
	}
	if _, _, _, err := valid().Verify(v, policies.Hash{0xd0, 1}); !errors.Is(err, policies.ErrProof) {
		t.Errorf("asked about another document: got %v, want ErrProof", err)
	}
	other := *v
	other.LogKey = forger.key()
	if _, _, _, err := valid().Verify(&other, document); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("another log key: got %v, want ErrSignature", err)
	}
}

func TestEvidenceOfEveryEntry(t *testing.T) {
	l, v, _ := receiptFixture()
	for size := 1; size <= len(l.leaves); size++ {
		c := must(OpenCheckpoint(l.checkpoint(size), v.LogKey))
		for i := range size {
			e := l.evidence(uint64(i), size)
			if _, _, d, err := e.Verify(c); err != nil || d.Owner != testOwner {
				t.Errorf("entry %d of %d: %v", i, size, err)
			}
		}
	}
	// A leaf that is in the tree and yet no entry is refused for its form.
	l.leaves = append(l.leaves, []byte("no entry"))
	l.openings = append(l.openings, Opening{})
	l.hashes = append(l.hashes, must(tlog.StoredHashes(7, []byte("no entry"), l.hashes))...)
	e := l.evidence(7, 8)
	if _, _, _, err := e.Verify(must(OpenCheckpoint(l.checkpoint(8), v.LogKey))); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a leaf that is no entry: got %v, want ErrMalformed", err)
	}
}

func TestOpenCheckpoint(t *testing.T) {
	l, v, _ := receiptFixture()
	root := l.root(7)
	root64 := base64.StdEncoding.EncodeToString(root[:])
	good := l.checkpoint(7)
	if c, err := OpenCheckpoint(good, v.LogKey); err != nil || c != (Checkpoint{7, policies.Hash(root)}) {
		t.Fatalf("got %+v, %v", c, err)
	}
	// Signed by a witness too, whom this client does not know: fine.
	if _, err := OpenCheckpoint(good+"\u2014 witness.example "+base64.StdEncoding.EncodeToString(filled(68, 1))+"\n", v.LogKey); err != nil {
		t.Errorf("with another signature: %v", err)
	}
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"another origin", l.sign("other.example\n7\n" + root64 + "\n"), policies.ErrMalformed},
		{"no origin", l.sign("7\n" + root64 + "\n"), policies.ErrMalformed},
		{"an extension line", l.sign(l.name + "\n7\n" + root64 + "\nmore\n"), policies.ErrMalformed},
		{"a sign before the size", l.sign(l.name + "\n+7\n" + root64 + "\n"), policies.ErrMalformed},
		{"a zero before the size", l.sign(l.name + "\n07\n" + root64 + "\n"), policies.ErrMalformed},
		{"a negative size", l.sign(l.name + "\n-7\n" + root64 + "\n"), policies.ErrMalformed},
		{"a size over 64 bits", l.sign(l.name + "\n18446744073709551616\n" + root64 + "\n"), policies.ErrMalformed},
		{"a hexadecimal size", l.sign(l.name + "\n0x7\n" + root64 + "\n"), policies.ErrMalformed},
		{"a short root", l.sign(l.name + "\n7\nAAAA\n"), policies.ErrMalformed},
		{"a root with stray bits", l.sign(l.name + "\n7\n" + strings.Repeat("A", 42) + "B=\n"), policies.ErrMalformed},
		{"a space", l.sign(l.name + " \n7\n" + root64 + "\n"), policies.ErrMalformed},
		{"two lines", l.sign(l.name + "\n7\n"), policies.ErrMalformed},
		{"empty", "", policies.ErrSignature},
		{"no signature", l.name + "\n7\n" + root64 + "\n\n", policies.ErrSignature},
		{"cut", good[:len(good)-2], policies.ErrSignature},
		{"longer", good + "more", policies.ErrSignature},
	} {
		if _, err := OpenCheckpoint(c.text, v.LogKey); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	for i := range good {
		if _, err := OpenCheckpoint(string(flip([]byte(good), i)), v.LogKey); err == nil {
			t.Errorf("byte %d of a checkpoint changed makes no difference", i)
		}
	}
	for name, key := range map[string]policies.LogKey{
		"short key":       {Name: l.name, Algorithm: "Ed25519", PublicKey: filled(31, 1)},
		"no name":         {Name: "", Algorithm: "Ed25519", PublicKey: l.key().PublicKey},
		"name with space": {Name: "a b", Algorithm: "Ed25519", PublicKey: l.key().PublicKey},
		"name with plus":  {Name: "a+b", Algorithm: "Ed25519", PublicKey: l.key().PublicKey},
	} {
		if _, err := OpenCheckpoint(good, key); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	renamed := l.key()
	renamed.Name = "other.example"
	if _, err := OpenCheckpoint(good, renamed); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("the same key under another name: got %v, want ErrSignature", err)
	}
}

func TestParseReceiptRefuses(t *testing.T) {
	_, _, valid := receiptFixture()
	good := string(must(json.Marshal(valid())))
	for name, text := range map[string]string{
		"empty":          "",
		"null":           "null",
		"unknown member": `{"more":1,` + good[1:],
		"twice":          `{"type":"receipt",` + good[1:],
		"trailing":       good + "{}",
		"another type":   strings.Replace(good, `"receipt"`, `"grant"`, 1),
		"another suite":  strings.Replace(good, `"SP1"`, `"SP2"`, 1),
		"no type":        strings.Replace(good, `"type":"receipt",`, ``, 1),
		"negative index": strings.Replace(good, `"index":3`, `"index":-3`, 1),
		"short hash":     strings.Replace(good, `"document":"d0`, `"document":"d`, 1),
	} {
		if text == good {
			t.Fatalf("%s: the test changes nothing", name)
		}
		if _, err := ParseReceipt([]byte(text)); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	e := validEntry()
	f.Add(e.Bytes())
	f.Add(policies.Encode("entry", []byte("use"), nil, nil, nil, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEntry(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(e.Bytes(), data) {
			t.Errorf("an entry with two spellings: %x", data)
		}
	})
}

func FuzzParseLogLeaf(f *testing.F) {
	f.Add(logLeaf(testTime, validEntry()))
	f.Add(filled(8, 0xff))
	f.Fuzz(func(t *testing.T, data []byte) {
		at, e, err := ParseLogLeaf(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(logLeaf(at, e), data) {
			t.Errorf("a leaf with two spellings: %x", data)
		}
	})
}

func FuzzParseBody(f *testing.F) {
	opening, _ := Commit(&Details{Field: "phone.mobile"})
	b := Body{Opening: opening, Document: []byte("{}")}
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 16})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBody(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if !bytes.Equal(b.Bytes(), data) {
			t.Errorf("a body with two spellings: %x", data)
		}
		if _, err := b.Read(); err != nil && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("details: got %v, want ErrMalformed", err)
		}
	})
}

func FuzzParseReceipt(f *testing.F) {
	_, v, valid := receiptFixture()
	f.Add(must(json.Marshal(valid())))
	f.Add([]byte(`{"type":"receipt","suite":"SP1","evidence":{"index":18446744073709551615,"proof":null}}`))
	genuine := valid().Evidence.Leaf
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReceipt(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		if _, _, _, err := r.Verify(v, policies.Hash{0xd0}); err == nil && !bytes.Equal(r.Evidence.Leaf, genuine) {
			t.Error("a receipt was forged")
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	l, v, _ := receiptFixture()
	genuine := must(OpenCheckpoint(l.checkpoint(7), v.LogKey))
	f.Add(l.checkpoint(7))
	f.Add("a\n1\nAAAA\n\n\u2014 a AAAA\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := OpenCheckpoint(text, v.LogKey)
		if err == nil && c != genuine {
			t.Errorf("a checkpoint was forged: %+v", c)
		}
		if err != nil && !errors.Is(err, policies.ErrSignature) && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}

// What a token or a system says is not always UTF-8. Recording it must not stop the vault.
func TestCommitToAnyText(t *testing.T) {
	opening, commitment := Commit(&Details{Token: "\xff0123", Note: "module says \xc3("})
	if opening.Commitment() != commitment {
		t.Error("the opening does not open")
	}
	if d, err := opening.Read(); err != nil || d.Token != "\ufffd0123" || d.Note != "module says \ufffd(" {
		t.Errorf("reads back as %+v, %v", d, err)
	}
}

func someAnswer(l *testLog) *Answer {
	return &Answer{Checkpoint: l.checkpoint(7), Evidence: []Evidence{l.evidence(1, 7), l.evidence(5, 7)}, Absent: []uint64{2, 1 << 60}, Before: 1}
}

func TestAnswerInverse(t *testing.T) {
	l, v, _ := receiptFixture()
	for _, a := range []*Answer{someAnswer(l), {Checkpoint: l.checkpoint(7), Evidence: []Evidence{}}} {
		back, err := ParseAnswer(a.Bytes())
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
	}
	plain := someAnswer(l).Bytes()
	for n := range plain {
		if _, err := ParseAnswer(plain[:n]); !errors.Is(err, policies.ErrMalformed) {
			t.Fatalf("cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	for name, a := range map[string]*Answer{
		"too many":                {Evidence: make([]Evidence, policies.MaxEvidence), Absent: []uint64{1}},
		"too many that are not":   {Absent: make([]uint64, policies.MaxEvidence+1)},
		"a proof without end":     {Evidence: []Evidence{{Proof: make([]policies.Hash, maxProof+1)}}},
		"more bytes than allowed": {Evidence: []Evidence{{Leaf: make([]byte, MaxAnswer)}}},
	} {
		if _, err := ParseAnswer(a.Bytes()); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseAnswer((&Answer{Absent: make([]uint64, policies.MaxEvidence)}).Bytes()); err != nil {
		t.Errorf("as many as may be asked for: %v", err)
	}
	c := must(OpenCheckpoint(l.checkpoint(7), v.LogKey))
	// What was erased is proven all the same, and says so. Half an opening is none.
	erased := l.evidence(5, 7)
	erased.Opening = Opening{}
	at, entry, details, err := erased.Verify(c)
	if !errors.Is(err, ErrErased) || !errors.Is(err, policies.ErrProof) || details != nil || !at.Equal(testTime) || entry.Outcome != policies.CodeNoGrant {
		t.Errorf("erased: %v, %+v, %+v, %v", at, entry, details, err)
	}
	for name, spoil := range map[string]func(*Evidence){
		"no salt":    func(e *Evidence) { e.Opening.Salt = policies.Nonce{} },
		"no details": func(e *Evidence) { e.Opening.Details = nil },
		"no proof":   func(e *Evidence) { e.Opening, e.Proof = Opening{}, nil },
		"no leaf":    func(e *Evidence) { e.Opening, e.Leaf = Opening{}, nil },
	} {
		e := l.evidence(5, 7)
		spoil(&e)
		if _, _, _, err := e.Verify(c); !errors.Is(err, policies.ErrProof) || errors.Is(err, ErrErased) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseEvidence(f *testing.F) {
	l, v, _ := receiptFixture()
	f.Add(someAnswer(l).Bytes())
	erased := someAnswer(l)
	erased.Evidence[0].Opening = Opening{}
	f.Add(erased.Bytes())
	f.Add([]byte(`{"checkpoint":"","evidence":[{"index":18446744073709551615,"proof":null}],"absent":[0,0]}`))
	f.Add([]byte(`null`))
	c := must(OpenCheckpoint(l.checkpoint(7), v.LogKey))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAnswer(data)
		if err != nil {
			if !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		for i := range a.Evidence {
			e := &a.Evidence[i]
			if _, _, _, err := e.Verify(c); (err == nil || errors.Is(err, ErrErased)) && !bytes.Equal(e.Leaf, l.leaves[e.Index]) {
				t.Error("an entry was forged")
			}
		}
		again := a.Bytes() // one spelling, whatever the other was
		if back, err := ParseAnswer(again); err != nil || !bytes.Equal(back.Bytes(), again) {
			t.Errorf("came back as %+v, %v", back, err)
		}
	})
}
