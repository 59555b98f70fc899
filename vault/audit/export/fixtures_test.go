package export

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var (
	logKey   = ed25519.NewKeyFromSeed(make([]byte, 32))
	hostKey  = must(evidence.NewCosignerKey("vault.example/host", &[32]byte{1}))
	document = &policies.VaultDocument{
		Vault:      policies.VaultID{7},
		LogKey:     policies.LogKey{Name: "vault.example/log", Algorithm: "Ed25519", PublicKey: logKey.Public().(ed25519.PublicKey)},
		LogHostKey: policies.LogKey{Name: hostKey.Cosigner().Name, Algorithm: "ML-DSA-44", PublicKey: hostKey.Cosigner().PublicKey},
	}
)

// testLog is a published log that grows in a folder.
type testLog struct {
	dir    string
	at     time.Time
	leaves [][]byte
	bodies [][]byte
	hashes stored
}

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func newLog(t testing.TB) *testLog { return &testLog{dir: t.TempDir(), at: start} }

// add appends an entry, ten milliseconds after the last.
func (l *testLog) add(e evidence.Entry, d evidence.Details, document []byte) uint64 {
	opening, commitment := evidence.Commit(&d)
	e.Commitment = commitment
	body := evidence.Body{Opening: opening, Document: document}
	l.at = l.at.Add(10 * time.Millisecond)
	leaf := append(binary.BigEndian.AppendUint64(nil, uint64(l.at.UnixMilli())), e.Bytes()...)
	index := len(l.leaves)
	l.hashes = append(l.hashes, must(tlog.StoredHashes(int64(index), leaf, l.hashes))...)
	l.leaves, l.bodies = append(l.leaves, leaf), append(l.bodies, body.Bytes())
	return uint64(index)
}

func (l *testLog) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

func (l *testLog) file(name string, data []byte) {
	path := l.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		panic(err)
	}
}

// publish writes the log's first entries, the checkpoint last.
func (l *testLog) publish(size int) {
	for level := 0; size>>(8*level) > 0; level++ {
		for n := 0; n*audit.TileWidth < size>>(8*level); n++ {
			var data []byte
			width := min(size>>(8*level)-n*audit.TileWidth, audit.TileWidth)
			for i := range width {
				h := l.hashes[tlog.StoredHashIndex(8*level, int64(n*audit.TileWidth+i))]
				data = append(data, h[:]...)
			}
			l.file(audit.TilePath(level, int64(n), width), data)
		}
	}
	for n := 0; n*audit.TileWidth < size; n++ {
		width := min(size-n*audit.TileWidth, audit.TileWidth)
		var entries, bodies []byte
		for i := n * audit.TileWidth; i < n*audit.TileWidth+width; i++ {
			entries = append(binary.BigEndian.AppendUint16(entries, uint16(len(l.leaves[i]))), l.leaves[i]...)
			if l.bodies[i] == nil {
				bodies = binary.BigEndian.AppendUint32(bodies, 1<<32-1)
			} else {
				bodies = append(binary.BigEndian.AppendUint32(bodies, uint32(len(l.bodies[i]))), l.bodies[i]...)
			}
		}
		l.file(audit.EntriesPath(int64(n), width), entries)
		l.file(audit.BodiesPath(int64(n), width), bodies)
	}
	l.file("checkpoint", l.checkpoint(size))
}

func (l *testLog) checkpoint(size int) []byte {
	root, name := must(tlog.TreeHash(int64(size), l.hashes)), document.LogKey.Name
	verifier := must(note.NewEd25519VerifierKey(name, document.LogKey.PublicKey))
	signer := must(note.NewSigner("PRIVATE+KEY+" + name + "+" + strings.Split(verifier, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, logKey.Seed()...))))
	text := must(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", name, size, base64.StdEncoding.EncodeToString(root[:]))}, signer))
	line := must(hostKey.Cosign(name, evidence.Checkpoint{Size: uint64(size), Root: policies.Hash(root)}, time.Unix(1, 0)))
	return append(text, line...)
}

// person is somebody in a log.
type person struct {
	pseudo policies.Pseudonym
	id     policies.IdentityID
	key    *envelope.PrivateKey
}

func (p *person) owner() policies.OwnerID   { return policies.OwnerID(p.id) }
func (p *person) author() policies.AuthorID { return policies.AuthorID(p.id) }
func (p *person) reader() policies.ReaderID { return policies.ReaderID(p.id) }

// enrol adds a person, or with a name a business.
func (l *testLog) enrol(seed byte, name string) *person {
	p := &person{pseudo: policies.Pseudonym{1, seed}, key: envelope.NewPrivateKey(&[64]byte{seed})}
	id := policies.Identity{
		Header: policies.NewHeader("identity", l.at), Kind: policies.KindPerson, Name: name, SigningKey: p.key.Public().Bytes(),
		KEMKey: append(make([]byte, policies.KEMPublicKeySize-1), 1), LoginKey: append(make([]byte, policies.KEMPublicKeySize-1), 2), RecoveryHash: policies.Hash{1},
	}
	if name != "" {
		id.Kind = policies.KindBusiness
	}
	e := must(policies.Sign(p.key, &id))
	p.id = policies.IdentityID(e.Hash)
	l.add(evidence.Entry{Kind: evidence.EntryIdentity, Owner: p.pseudo, Outcome: policies.CodeAccepted}, evidence.Details{Document: e.Hash, Identity: p.id, Pseudo: p.pseudo}, e.Raw)
	return p
}

// grant adds an import with its document, and the grant.
func (l *testLog) grant(owner, reader *person, fields ...policies.Field) policies.DocumentID {
	g := &policies.Grant{
		Header: policies.NewHeader("grant", l.at), Audience: document.Vault, Owner: owner.owner(), Link: policies.Link{Seq: 1}, Reader: reader.reader(), Relationship: policies.Hash{1},
		Custody: policies.CustodyResident, Rights: []policies.Right{policies.RightRead}, Purpose: "delivery", NotBefore: l.at.Unix(), Expires: l.at.Unix() + 86400,
		Ciphertext: bytes.Repeat([]byte{3}, policies.KEMCiphertextSize),
	}
	for _, f := range fields {
		g.Fields = append(g.Fields, policies.GrantedField{Field: f, Epoch: 1, Author: owner.author(), Keys: []policies.WrappedKey{{Token: "token-1", ImportKey: policies.Hash{1}, Path: "oaep-direct", Digest: policies.Hash{2}}}})
	}
	e := must(policies.Sign(owner.key, g))
	d := evidence.Details{Owner: g.Owner, Reader: g.Reader, Grant: g.ID, Document: e.Hash, Token: "token-1", Custody: g.Custody}
	index := l.add(evidence.Entry{Kind: evidence.EntryImport, Owner: owner.pseudo, Reader: reader.pseudo}, d, e.Raw)
	d.Index, d.Token, d.Seq = index, "", 1
	l.add(evidence.Entry{Kind: evidence.EntryGrant, Owner: owner.pseudo, Reader: reader.pseudo, Outcome: policies.CodeAccepted}, d, nil)
	return g.ID
}

// use adds a use of a grant, decided a moment before.
func (l *testLog) use(owner, reader *person, grant policies.DocumentID, field policies.Field, bend func(*evidence.Entry, *evidence.Details)) uint64 {
	e := evidence.Entry{Kind: evidence.EntryUse, Owner: owner.pseudo, Reader: reader.pseudo, Outcome: policies.CodeReleased}
	d := evidence.Details{
		Owner: owner.owner(), Reader: reader.reader(), Grant: grant, Field: field, Author: owner.author(), Epoch: 1, Version: 3, Session: policies.Hash{5}, Request: policies.Hash{6},
		Token: "token-1", Grade: "A", Decided: l.at.Add(8 * time.Millisecond).UnixMilli(), Custody: policies.CustodyResident,
	}
	if bend != nil {
		bend(&e, &d)
	}
	return l.add(e, d, nil)
}

func (l *testLog) revoke(owner *person, items ...policies.RevokedItem) {
	l.add(evidence.Entry{Kind: evidence.EntryRevocation, Owner: owner.pseudo, Outcome: policies.CodeAccepted}, evidence.Details{Owner: owner.owner(), Seq: 2, Items: items}, nil)
}

func (l *testLog) vaultStart(grade string) {
	l.add(evidence.Entry{Kind: evidence.EntryStart, Outcome: policies.CodeAccepted}, evidence.Details{Token: "token-1", Grade: grade, Note: "light probe"}, nil)
}

// innocent is a log in which nothing is wrong: two businesses, grants, reads, a refusal, a revocation.
func innocent(t testing.TB) (l *testLog, owner, acme, bank *person, grants [2]policies.DocumentID) {
	l = newLog(t)
	l.add(evidence.Entry{Kind: evidence.EntryGenesis, Outcome: policies.CodeAccepted}, evidence.Details{}, nil)
	l.vaultStart("A")
	owner, acme, bank = l.enrol(1, ""), l.enrol(2, "ACME | \"a=b\" \\ Ltd"), l.enrol(3, "Bank")
	grants = [2]policies.DocumentID{l.grant(owner, acme, "phone.mobile", "postal"), l.grant(owner, bank, "iban")}
	for range 5 {
		l.use(owner, acme, grants[0], "phone.mobile", nil)
		l.use(owner, bank, grants[1], "iban", nil)
	}
	l.add(evidence.Entry{Kind: evidence.EntryRefusal, Owner: owner.pseudo, Reader: bank.pseudo, Outcome: policies.CodeNoGrant},
		evidence.Details{Owner: owner.owner(), Reader: bank.reader(), Field: "postal", Author: owner.author(), Request: policies.Hash{6}}, nil)
	l.revoke(owner, policies.RevokedItem{Grant: grants[0], Field: "postal", Author: owner.author()})
	l.use(owner, acme, grants[0], "phone.mobile", nil) // not the field that was revoked
	l.add(evidence.Entry{Kind: evidence.EntryStop, Outcome: policies.CodeAccepted}, evidence.Details{}, nil)
	l.vaultStart("A")
	return l, owner, acme, bank, grants
}

// everything is a log with an entry of each kind, and of each way in which one can lack something.
func everything(t testing.TB) (l *testLog, owner, acme, bank *person) {
	l, owner, acme, bank, grants := innocent(t)
	both := evidence.Entry{Owner: owner.pseudo, Reader: acme.pseudo}
	add := func(e evidence.Entry, kind evidence.Kind, outcome policies.Code, d evidence.Details) uint64 {
		e.Kind, e.Outcome = kind, outcome
		return l.add(e, d, nil)
	}
	ofOwner, ofReader, nobody := evidence.Entry{Owner: owner.pseudo}, evidence.Entry{Reader: acme.pseudo}, evidence.Entry{}
	add(ofOwner, evidence.EntryManifest, policies.CodeAccepted, evidence.Details{Owner: owner.owner(), Author: owner.author(), Document: policies.Hash{9}, Version: 2})
	add(ofReader, evidence.EntrySession, policies.CodeAccepted, evidence.Details{Reader: acme.reader(), Document: policies.Hash{5}, Session: policies.Hash{5}, Expires: start.Unix() + 600})
	l.use(owner, acme, grants[0], "phone.mobile", func(e *evidence.Entry, _ *evidence.Details) { e.Outcome = policies.CodeUnchanged })
	used := l.use(owner, acme, grants[0], "phone.mobile", nil)
	add(both, evidence.EntryFailed, policies.CodeKeyMissing, evidence.Details{Owner: owner.owner(), Reader: acme.reader(), Field: "phone.mobile", Request: policies.Hash{6}, Index: used, Token: "token-1"})
	add(both, evidence.EntryFailed, policies.CodeImport, evidence.Details{Owner: owner.owner(), Reader: acme.reader(), Grant: policies.DocumentID{8}, Document: policies.Hash{8}, Index: 3})
	add(nobody, evidence.EntryFailed, policies.CodeTokenFailure, evidence.Details{Index: 3, Custody: policies.CustodySealed, Period: 2, Note: "the sealing key is not destroyed; it is tried again"})
	add(ofReader, evidence.EntryRefusal, policies.CodeNoGrant, evidence.Details{Owner: owner.owner(), Reader: acme.reader(), Field: "iban", Author: owner.author(), Request: policies.Hash{6}}) // a stranger's
	add(ofReader, evidence.EntryRefusal, policies.CodeReplay, evidence.Details{Reader: acme.reader(), Request: policies.Hash{6}})
	add(ofOwner, evidence.EntryRefusal, policies.CodeChain, evidence.Details{Owner: owner.owner(), Identity: owner.id, Document: policies.Hash{4}, Note: "grant"})
	add(ofReader, evidence.EntryRefusals, "", evidence.Details{Count: 40, Note: "no_grant 40", Identity: acme.id})
	add(ofOwner, evidence.EntryRefusals, "", evidence.Details{Count: 3, Note: "chain_moved 3", Identity: owner.id})
	add(nobody, evidence.EntryRefusals, "", evidence.Details{Count: 7, Note: "bad_signature 7"})
	l.revoke(owner, policies.RevokedItem{Grant: grants[0], Field: "phone.mobile", Author: owner.author()}, policies.RevokedItem{Grant: grants[1], Field: "iban", Author: owner.author()},
		policies.RevokedItem{Grant: policies.DocumentID{66}, Field: "name", Author: owner.author()})
	add(ofOwner, evidence.EntryDestroyed, policies.CodeAccepted, evidence.Details{Owner: owner.owner(), Document: policies.Hash{3}, Items: []policies.RevokedItem{{Grant: grants[0], Field: "phone.mobile", Author: owner.author()}}})
	add(nobody, evidence.EntrySealing, policies.CodeAccepted, evidence.Details{Custody: policies.CustodySealed, Period: 2, Count: 12, Token: "token-1"})
	add(nobody, evidence.EntryErasure, policies.CodeAccepted, evidence.Details{Count: 2, Note: "retention 2160h0m0s"})
	add(ofReader, evidence.EntryAccess, policies.CodeAccepted, evidence.Details{Reader: acme.reader(), Count: 2})
	add(nobody, "novelty", policies.CodeAccepted, evidence.Details{Note: "a kind that this does not know"})
	l.use(owner, bank, grants[1], "iban", nil) // after its revocation
	l.vaultStart("C")
	l.use(owner, acme, grants[0], "postal", func(_ *evidence.Entry, d *evidence.Details) { d.Decided -= 3_600_000 })
	for _, kind := range []evidence.Kind{evidence.EntryUse, evidence.EntryFailed, evidence.EntryRevocation, evidence.EntryRefusal, evidence.EntryGrant, evidence.EntryDestroyed} {
		i := add(both, kind, policies.CodeNoGrant, evidence.Details{Owner: owner.owner(), Field: "postal"})
		l.bodies[i] = nil // erased
	}
	return l, owner, acme, bank
}

func (l *testLog) exporter(f Format, out Output) *Exporter {
	return &Exporter{Source: audit.Folder(l.dir), Document: document, Format: f, Output: out}
}

// exported is the output of an export of the whole log.
func (l *testLog) exported(t testing.TB, f Format, pseudonyms bool) []byte {
	t.Helper()
	l.publish(len(l.leaves))
	var b bytes.Buffer
	x := l.exporter(f, Pipe{&b})
	x.Pseudonyms = pseudonyms
	if err := x.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// objects are JSON lines.
func objects(t testing.TB, lines []byte) (out []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		o := map[string]any{}
		if err := json.Unmarshal(line, &o); err != nil || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, o)
	}
	return out
}
