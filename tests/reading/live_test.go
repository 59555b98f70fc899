package reading

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// fields are those of the worlds below, in no order. The first is granted and rotated.
var fields = []policies.Field{"phone.mobile", "iban", "a", "salary/net_2026-01", "z-9"}

const made = 1_800_000_000 // the time of fresh documents

// vaultSide is what a vault keeps to itself.
type vaultSide struct {
	rsa     *rsa.PrivateKey
	spki    []byte
	hpke    *pre.BlobKey
	session *pre.VaultKey
	log     [32]byte
	host    []byte
}

func random32() (s [32]byte) {
	rand.Read(s[:])
	return s
}

func newVaultSide(t *testing.T) *vaultSide {
	t.Helper()
	key := need(rsa.GenerateKey(rand.Reader, 3072))(t)
	return &vaultSide{key, need(x509.MarshalPKIXPublicKey(&key.PublicKey))(t), pre.NewBlobKey(random32()), pre.NewVaultKey(random32()), random32(), bytes.Repeat([]byte{7}, policies.LogHostKeySize)}
}

// world is what src/make.js makes.
type world struct {
	Vault       policies.VaultID       `json:"vault"`
	Ceremony    policies.Hash          `json:"ceremony"`
	OwnerRoot   bin                    `json:"owner_root"`
	ReaderRoot  bin                    `json:"reader_root"`
	Nonce       policies.Nonce         `json:"nonce"`
	Values      map[policies.Field]bin `json:"values"`
	Documents   map[string]bin         `json:"documents"`
	Leaves      []bin                  `json:"leaves"`
	Ciphertexts map[policies.Field]bin `json:"ciphertexts"`
	Rotated     bin                    `json:"rotated"`
	Imports     []struct {
		Field  policies.Field `json:"field"`
		Sealed bin            `json:"sealed"`
		KeyID  bin            `json:"key_id"`
	} `json:"imports"`
	AuthorKey bin `json:"author_key"`
	K         bin `json:"K"`
	Message   struct {
		Type            string
		Plaintext, Blob bin
	} `json:"message"`
	Join     string   `json:"join"`
	Contacts []string `json:"contacts"`
}

func makeWorld(t *testing.T, p *process, v *vaultSide, oaep string) world {
	t.Helper()
	r := operation("make", "world", "time", made, "import_key", v.spki, "oaep_hash", oaep, "log_key", v.log[:], "log_host_key", v.host,
		"import_hpke_key", v.hpke.Public(), "session_kem_key", v.session.Public())
	r.In.(map[string]any)["fields"] = fields
	return ok[world](t, p, r)
}

// opened verifies a document as the first reading does.
func opened[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](t *testing.T, raw []byte, key envelope.Verifier) (*T, policies.Hash) {
	t.Helper()
	e := need(envelope.Parse(raw))(t)
	return need(policies.Open[T, D](e, key))(t), e.Hash
}

// TestGoReadsWhatJavaScriptMakes: every kind of document, item, capsule, wrapped key, session, message and link.
func TestGoReadsWhatJavaScriptMakes(t *testing.T) {
	p := open(t)
	v := newVaultSide(t)
	for oaep, newHash := range map[string]func() hash.Hash{"SHA-1": sha1.New, "SHA-256": sha256.New} {
		t.Run(oaep, func(t *testing.T) {
			w := makeWorld(t, p, v, oaep)
			document := need(policies.OpenVault(need(envelope.Parse(w.Documents["vault"]))(t), w.Vault, w.Ceremony, 3))(t)
			if len(document.Tokens) != 1 || !bytes.Equal(document.Tokens[0].ImportKeys[0].PublicKey, v.spki) {
				t.Error("the vault document has another import key")
			}
			owner, id, err := policies.OpenIdentity(need(envelope.Parse(w.Documents["owner"]))(t))
			must(t, err)
			reader, readerIdentity, err := policies.OpenIdentity(need(envelope.Parse(w.Documents["reader"]))(t))
			must(t, err)
			ownerID, readerID := policies.OwnerID(id), policies.ReaderID(readerIdentity)
			ownerKey, readerKey := need(owner.Key())(t), need(reader.Key())(t)

			// The keys of a root are the same keys.
			root, readerRoot := need(pre.ParseRoot(w.OwnerRoot))(t), need(pre.ParseRoot(w.ReaderRoot))(t)
			seed := root.IdentitySeed()
			if !bytes.Equal(envelope.NewPrivateKey(&seed).Public().Bytes(), owner.SigningKey) ||
				!bytes.Equal(pre.NewBlobKey(root.KEMSeed()).Public(), owner.KEMKey) || !bytes.Equal(pre.NewLoginKey(root.LoginSeed()).Public(), owner.LoginKey) {
				t.Error("the identity's keys are not those of its root")
			}
			kem := readerRoot.ReaderKey(ownerID, w.Nonce)
			relationship, relationshipHash := opened[policies.Relationship](t, w.Documents["relationship"], readerKey)
			if !bytes.Equal(relationship.KEMKey, kem.Public()) || relationship.Nonce != w.Nonce || relationship.Owner != ownerID || relationship.Reader != readerID {
				t.Error("the relationship is another one")
			}

			// Items, their tree, and a rotation.
			var leaves []policies.Leaf
			for i := range w.Leaves {
				leaves = append(leaves, need(policies.ParseLeaf(w.Leaves[i]))(t))
			}
			tree := need(policies.NewTree(leaves))(t)
			manifest, manifestHash := opened[policies.Manifest](t, w.Documents["manifest"], ownerKey)
			if manifest.Root != tree.Root() || manifest.TreeSize != tree.Size() {
				t.Error("the manifest has another tree")
			}
			must(t, manifest.Follows(0, policies.Hash(id)))
			for i := range leaves {
				l := &leaves[i]
				if value := need(need(root.FieldKey(l.Slot))(t).Open(l, w.Ciphertexts[l.Field]))(t); !bytes.Equal(value, w.Values[l.Field]) {
					t.Errorf("%s: another value", l.Field)
				}
			}
			rotated := need(policies.ParseLeaf(w.Rotated))(t)
			if value := need(need(root.FieldKey(rotated.Slot))(t).Open(&rotated, w.Ciphertexts[rotated.Field]))(t); !bytes.Equal(value, w.Values[rotated.Field]) {
				t.Error("rotated: another value")
			}
			slot := policies.Slot{Owner: ownerID, Field: fields[0], Epoch: 1, Author: policies.AuthorID(ownerID)}
			if !bytes.Equal(need(need(root.FieldKey(slot))(t).Author())(t).Bytes(), w.AuthorKey) {
				t.Error("another A")
			}

			// The grant: unwrap as the token would, re-encrypt, open as the reader.
			grant, grantHash := opened[policies.Grant](t, w.Documents["grant"], ownerKey)
			must(t, grant.Follows(1, manifestHash))
			if grant.Relationship != relationshipHash || len(grant.Fields) != len(fields) || len(w.Imports) != len(fields) {
				t.Error("the grant is another one")
			}
			secret := need(kem.OpenGrant(grant.Ciphertext))(t)
			for i := range w.Imports {
				f, in := &grant.Fields[i], w.Imports[i]
				wrapped := need(v.hpke.Open(need(pre.ImportInfo(w.Vault, grantHash, f.Field, f.Epoch, f.Author))(t), in.Sealed))(t)
				if f.Keys[0].Digest != sha256.Sum256(wrapped) || f.Keys[0].ImportKey != policies.HashKey(v.spki) {
					t.Errorf("%s: the grant names another wrapped key", f.Field)
				}
				rk := need(pre.ParseReEncryptionKey(need(rsa.DecryptOAEP(newHash(), nil, v.rsa, wrapped, nil))(t)))(t)
				l, _, found := tree.Find(f.Field)
				if !found {
					t.Fatalf("%s is not in the tree", f.Field)
				}
				value := need(secret.Open(grant.ID, readerID, l, need(pre.Reencrypt(rk, &l.Capsule))(t), w.Ciphertexts[f.Field]))(t)
				if !bytes.Equal(value, w.Values[f.Field]) {
					t.Errorf("%s: the reader reads another value", f.Field)
				}
				keyID := sha256.Sum256(policies.Encode("key-id", grant.ID[:], []byte(f.Field), f.Author[:]))
				if !bytes.Equal(in.KeyID, keyID[:]) {
					t.Errorf("%s: another name in the token", f.Field)
				}
			}
			revocation, _ := opened[policies.Revocation](t, w.Documents["revocation"], ownerKey)
			must(t, revocation.Follows(2, grantHash))

			// A session, a request of it, and an answer in each direction.
			session, sessionHash := opened[policies.Session](t, w.Documents["session"], readerKey)
			k := need(v.session.Decapsulate(session.Ciphertext))(t).Key(w.Vault, readerID, sessionHash)
			read, request := opened[policies.ReadRequest](t, w.Documents["read"], session.Key)
			if read.Session != sessionHash || len(read.Items) != len(fields) || read.Items[0].Known != 7 || read.Items[0].Writer() != policies.AuthorID(ownerID) {
				t.Error("the request is another one")
			}
			plaintext := (&policies.Answer{Time: made * 1000, Items: []policies.AnswerItem{{Outcome: policies.CodeReleased, X: random32(), Leaf: random32(), Version: 9}}}).Bytes()
			answer := need(k.SealAnswer(request, plaintext, nil))(t)
			if back := ok[struct{ Plaintext bin }](t, p, operation("make", "open-answer", "K", []byte(w.K), "request", request, "answer", answer)); !bytes.Equal(back.Plaintext, plaintext) {
				t.Error("JavaScript opens another answer")
			}
			back := ok[struct{ Answer bin }](t, p, operation("make", "seal-answer", "K", []byte(w.K), "request", request, "plaintext", plaintext))
			if !bytes.Equal(need(k.OpenAnswer(request, back.Answer))(t), plaintext) {
				t.Error("Go opens another answer")
			}
			proofs, asked := opened[policies.EvidenceRequest](t, w.Documents["evidence"], session.Key)
			if proofs.Session != sessionHash || proofs.Before != 1<<53+1 || proofs.Limit != 7 {
				t.Error("the request for evidence is another one")
			}
			sealed := need(k.SealEvidence(asked, []byte("proofs"), nil))(t)
			if back := ok[struct{ Plaintext bin }](t, p, operation("make", "open-evidence", "K", []byte(w.K), "request", asked, "answer", sealed)); string(back.Plaintext) != "proofs" {
				t.Error("JavaScript opens other evidence")
			}

			query, _ := opened[policies.AuditQuery](t, w.Documents["audit-query"], readerKey)
			if query.Auditor != readerIdentity || query.From != 0 || query.Count != 300 || query.What != "entries" {
				t.Error("the query is another one")
			}

			message := need(pre.NewBlobKey(readerRoot.KEMSeed()).Open(need(pre.MessageInfo(w.Message.Type, id, readerIdentity))(t), w.Message.Blob))(t)
			if !bytes.Equal(message, w.Message.Plaintext) {
				t.Error("another message")
			}
			join := need(links.ParseJoin(w.Join))(t)
			if join.Vault != w.Vault || join.Ceremony != w.Ceremony || join.Storefront != "https://store.example:443/" || join.Owners != "https://vault.example/" {
				t.Errorf("another join link: %+v", join)
			}
			for i, want := range []links.Contact{{Role: "owner", ID: id, Nonce: w.Nonce}, {Role: "reader", ID: readerIdentity}} {
				if have := need(links.ParseContact(w.Contacts[i]))(t); have != want {
					t.Errorf("contact %+v, want %+v", have, want)
				}
			}
		})
	}
}

// person is an identity that Go makes.
type person struct {
	root *pre.Root
	key  *envelope.PrivateKey
	id   policies.IdentityID
	raw  []byte
}

func newPerson(t *testing.T, kind policies.Kind, name string) person {
	t.Helper()
	root := need(pre.NewRoot())(t)
	seed := root.IdentitySeed()
	x := person{root: root, key: envelope.NewPrivateKey(&seed)}
	e := need(policies.Sign(x.key, &policies.Identity{
		Header: header("identity"), Kind: kind, Name: name, SigningKey: x.key.Public().Bytes(), KEMKey: pre.NewBlobKey(root.KEMSeed()).Public(),
		LoginKey: pre.NewLoginKey(root.LoginSeed()).Public(), RecoveryHash: random32(),
	}))(t)
	x.id, x.raw = e.Hash, e.Raw
	return x
}

func header(docType string) policies.Header { return policies.NewHeader(docType, time.Unix(made, 0)) }

// documents are one of each kind, by type, made by Go, with the keys that verify them.
type documents map[string]struct {
	envelope *envelope.Envelope
	public   []byte
}

// goWorld is what Go makes for JavaScript to read.
type goWorld struct {
	documents
	owner, reader person
	vault         policies.VaultID
	nonce         policies.Nonce
	kem           *pre.ReaderKey
	leaves        []policies.Leaf
	ciphertexts   map[policies.Field][]byte
	values        map[policies.Field][]byte
	grantID       policies.DocumentID
	ct            []byte
	secret        *pre.GrantSecret
	sessionSecret *pre.SessionSecret
}

func newGoWorld(t *testing.T, v *vaultSide) *goWorld {
	t.Helper()
	w := &goWorld{
		documents: documents{}, owner: newPerson(t, policies.KindPerson, ""), reader: newPerson(t, policies.KindBusiness, "Bäckerei Übermut GmbH"),
		vault: random32(), nonce: policies.NewNonce(), ciphertexts: map[policies.Field][]byte{}, values: map[policies.Field][]byte{},
	}
	add := func(e *envelope.Envelope, public []byte) policies.Hash {
		w.documents[e.Type] = struct {
			envelope *envelope.Envelope
			public   []byte
		}{e, public}
		return e.Hash
	}
	ownerID, readerID := policies.OwnerID(w.owner.id), policies.ReaderID(w.reader.id)
	author := policies.AuthorID(ownerID)
	ownerPublic, readerPublic := w.owner.key.Public().Bytes(), w.reader.key.Public().Bytes()
	add(need(envelope.Parse(w.reader.raw))(t), readerPublic)

	var ceremonySeed [64]byte
	rand.Read(ceremonySeed[:])
	ceremony := envelope.NewPrivateKey(&ceremonySeed)
	add(need(policies.Sign(ceremony, &policies.VaultDocument{
		Header: header("vault"), Vault: w.vault, Version: 3, CeremonyKey: ceremony.Public().Bytes(),
		Tokens: []policies.TokenEntry{{
			Serial: "0123456789abcdef", Label: "sallyport", Grade: "unproven",
			ImportKeys: []policies.ImportKey{{Custody: policies.CustodyResident, Path: "oaep-direct", OAEPHash: "SHA-1", PublicKey: v.spki}},
		}},
		LogKey:     policies.LogKey{Name: "vault.example/sallyport", Algorithm: "Ed25519", PublicKey: v.log[:]},
		LogHostKey: policies.LogKey{Name: "vault.example/sallyport/host", Algorithm: "ML-DSA-44", PublicKey: v.host}, ImportHPKE: v.hpke.Public(), SessionKEM: v.session.Public(),
	}))(t), ceremony.Public().Bytes())

	w.kem = w.reader.root.ReaderKey(ownerID, w.nonce)
	relationship := add(need(policies.Sign(w.reader.key, &policies.Relationship{
		Header: header("relationship"), Audience: w.vault, Reader: readerID, Owner: ownerID, KEMKey: w.kem.Public(), Nonce: w.nonce,
	}))(t), readerPublic)

	for i, f := range fields {
		slot := policies.Slot{Owner: ownerID, Field: f, Epoch: uint64(i + 1), Author: author}
		value := make([]byte, i*53)
		rand.Read(value)
		leaf, ciphertext, err := need(w.owner.root.FieldKey(slot))(t).Seal(uint64(2*i+1), value, nil)
		must(t, err)
		w.leaves, w.ciphertexts[f], w.values[f] = append(w.leaves, leaf), ciphertext, value
	}
	tree := need(policies.NewTree(w.leaves))(t)
	manifest := add(need(policies.Sign(w.owner.key, &policies.Manifest{
		Header: header("manifest"), Audience: w.vault, Owner: ownerID, Author: author, Link: policies.Link{Seq: 4, Prev: random32()},
		Version: 2, PrevManifest: random32(), TreeSize: tree.Size(), Root: tree.Root(),
	}))(t), ownerPublic)

	var err error
	w.ct, w.secret, err = pre.NewGrantSecret(w.kem.Public(), nil)
	must(t, err)
	grant := &policies.Grant{
		Header: header("grant"), Audience: w.vault, Owner: ownerID, Link: policies.Link{Seq: 5, Prev: manifest}, Reader: readerID, Relationship: relationship,
		Custody: policies.CustodySealed, Rights: []policies.Right{policies.RightRead}, Purpose: "delivery", NotBefore: made, Expires: made + 1, Ciphertext: w.ct,
	}
	for _, l := range w.leaves {
		grant.Fields = append(grant.Fields, policies.GrantedField{
			Field: l.Field, Epoch: l.Epoch, Author: author,
			Keys: []policies.WrappedKey{{Token: "0123456789abcdef", ImportKey: policies.HashKey(v.spki), Path: "oaep-direct", Digest: random32()}},
		})
	}
	w.grantID = grant.ID
	add(need(policies.Sign(w.owner.key, grant))(t), ownerPublic)
	add(need(policies.Sign(w.owner.key, &policies.Revocation{
		Header: header("revocation"), Audience: w.vault, Owner: ownerID, Link: policies.Link{Seq: 6, Prev: random32()},
		Items: []policies.RevokedItem{{Grant: w.grantID, Field: fields[0], Author: author}}, Reason: policies.ReasonSuperseded,
	}))(t), ownerPublic)

	ct, secret, err := pre.EncapsulateSession(v.session.Public(), nil)
	must(t, err)
	w.sessionSecret = secret
	key := envelope.NewSessionKey()
	public := key.Public()
	session := add(need(policies.Sign(w.reader.key, &policies.Session{
		Header: header("session"), Audience: w.vault, Reader: readerID, Key: public, NotBefore: made, Expires: made + 600, Ciphertext: ct,
	}))(t), readerPublic)
	add(need(policies.Sign(key, &policies.ReadRequest{
		Header: header("read"), Audience: w.vault, Session: session, Nonce: policies.NewNonce(), Expires: made + 120, Purpose: "delivery",
		Items: []policies.ReadItem{{Owner: ownerID, Field: fields[0]}, {Owner: ownerID, Field: fields[1], Author: author, Known: 1<<64 - 1}},
	}))(t), public[:])
	add(need(policies.Sign(key, &policies.EvidenceRequest{
		Header: header("evidence"), Audience: w.vault, Session: session, Nonce: policies.NewNonce(), Expires: made + 120, Indexes: []uint64{0, 5, 1<<64 - 1},
	}))(t), public[:])
	add(need(policies.Sign(w.reader.key, &policies.AuditQuery{
		Header: header("audit-query"), Audience: w.vault, Auditor: policies.IdentityID(readerID), Nonce: policies.NewNonce(), Expires: made + 120,
		From: 1 << 62, Count: uint64(policies.MaxQueryEntries), What: "bodies",
	}))(t), readerPublic)
	add(need(policies.Sign(w.owner.key, &policies.Closure{Header: header("closure"), Audience: w.vault, Owner: ownerID, Link: policies.Link{Seq: 7, Prev: random32()}}))(t), ownerPublic)
	add(need(policies.Sign(w.owner.key, &succession.Notice{
		Header: header("succession-notice"), Audience: w.vault, Identity: policies.IdentityID(ownerID), Link: policies.Link{Seq: 7, Prev: random32()}, Successor: random32(),
	}))(t), ownerPublic)
	add(need(policies.Sign(w.reader.key, &succession.Suspension{Header: header("suspension"), Audience: w.vault, Reader: readerID, Link: policies.Link{Seq: 1, Prev: policies.Hash(readerID)}}))(t), readerPublic)
	add(need(policies.Sign(w.reader.key, &succession.Renunciation{
		Header: header("renunciation"), Audience: w.vault, Reader: readerID, Owner: ownerID, Items: []policies.RevokedItem{{Grant: w.grantID, Field: fields[1], Author: author}},
	}))(t), readerPublic)
	add(need(policies.Sign(w.reader.key, &names.Statement{Header: header("domain-statement"), Identity: policies.IdentityID(readerID), Domain: "shop.example", Expires: made + 86400}))(t), readerPublic)
	return w
}

// TestJavaScriptReadsWhatGoMakes is the other direction.
func TestJavaScriptReadsWhatGoMakes(t *testing.T) {
	p := open(t)
	v := newVaultSide(t)
	w := newGoWorld(t, v)
	for docType, d := range w.documents {
		read := ok[struct{ Hash, Payload string }](t, p, operation("document-"+docType, "document", "envelope", string(d.envelope.Raw), "public", d.public, "type", docType))
		if read.Hash != hex.EncodeToString(d.envelope.Hash[:]) || read.Payload != string(d.envelope.Payload) {
			t.Errorf("%s: another hash or payload", docType)
		}
	}
	if len(w.documents) != 15 {
		t.Errorf("%d kinds of documents, want 15", len(w.documents))
	}

	// Items: the owner's reading, a rotation, the tree and its proofs.
	tree := need(policies.NewTree(w.leaves))(t)
	var raw [][]byte
	for i := range w.leaves {
		l := &w.leaves[i]
		raw = append(raw, l.Bytes())
		at := []any{"root", w.owner.root.Bytes(), "owner", l.Owner, "field", string(l.Field), "author", l.Author, "ciphertext", w.ciphertexts[l.Field]}
		key := need(w.owner.root.FieldKey(l.Slot))(t)
		next := l.Slot
		next.Epoch += 3
		rotated := need(key.Rotate(need(w.owner.root.FieldKey(next))(t), l, nil))(t)
		for _, leaf := range []*policies.Leaf{l, &rotated} {
			back := ok[struct{ Value bin }](t, p, operation("item", "open", append(at, "epoch", leaf.Epoch, "leaf", leaf.Bytes())...))
			if !bytes.Equal(back.Value, w.values[l.Field]) {
				t.Errorf("%s, epoch %d: another value", l.Field, leaf.Epoch)
			}
		}

		// The same fields granted: the token's answer, and the reader's opening.
		rk := need(w.secret.ReEncryptionKey(w.grantID, policies.ReaderID(w.reader.id), key))(t)
		x := need(pre.Reencrypt(rk, &l.Capsule))(t)
		if back := ok[struct{ X bin }](t, p, operation("reencrypt", "reencrypt", "pkcs8", rk.PKCS8(), "capsule", l.Capsule[:])); !bytes.Equal(back.X, x[:]) {
			t.Errorf("%s: another x", l.Field)
		}
		back := ok[struct{ Value bin }](t, p, operation("reencrypt", "open", "reader_root", w.reader.root.Bytes(), "owner", l.Owner, "nonce", w.nonce,
			"ct", w.ct, "grant", w.grantID, "reader", w.reader.id, "leaf", l.Bytes(), "ciphertext", w.ciphertexts[l.Field], "x", x[:]))
		if !bytes.Equal(back.Value, w.values[l.Field]) {
			t.Errorf("%s: the reader reads another value", l.Field)
		}
	}
	made := ok[struct {
		Root   string
		Proofs [][]policies.Hash
	}](t, p, operation("merkle", "tree", "leaves", raw))
	if root := tree.Root(); made.Root != root.String() {
		t.Error("another root")
	}
	for i := range made.Proofs {
		l := &tree.Leaves()[i]
		must(t, policies.Proof{Index: uint64(i), Path: made.Proofs[i]}.Verify(l.Hash(), tree.Size(), tree.Root()))
	}

	// Blobs, a login in each direction.
	info := need(pre.MessageInfo("consent", w.owner.id, w.reader.id))(t)
	blob := need(pre.SealBlob(pre.NewBlobKey(w.reader.root.KEMSeed()).Public(), info, []byte("may I?")))(t)
	kemSeed, loginSeed := w.reader.root.KEMSeed(), w.owner.root.LoginSeed()
	if back := ok[struct{ Plaintext bin }](t, p, operation("hpke-import", "open", "seed", kemSeed[:], "info", info, "blob", blob)); string(back.Plaintext) != "may I?" {
		t.Errorf("another message: %q", back.Plaintext)
	}
	login := pre.NewLoginKey(loginSeed)
	ct, challenge, err := pre.NewChallenge(login.Public(), nil)
	must(t, err)
	c := pre.Challenge{Server: "store.example:443", Subject: w.owner.id, Ciphertext: ct, Nonce: policies.NewNonce(), FreshKey: random32()}
	at := func(c *pre.Challenge, more ...any) []any {
		return append([]any{"server", c.Server, "subject", c.Subject, "ct", c.Ciphertext, "nonce", c.Nonce, "fresh_key", c.FreshKey[:]}, more...)
	}
	must(t, challenge.Verify(&c, ok[struct{ Answer bin }](t, p, operation("make", "answer-login", at(&c, "seed", loginSeed[:])...)).Answer))
	theirs := ok[struct{ CT, SS bin }](t, p, operation("make", "challenge", "public", login.Public()))
	c.Ciphertext = theirs.CT
	answer := need(login.Answer(&c))(t)
	ok[struct{}](t, p, operation("make", "verify-login", at(&c, "ss", []byte(theirs.SS), "answer", answer[:])...))
	answer[7] ^= 1
	if back := p.ask(t, operation("make", "verify-login", at(&c, "ss", []byte(theirs.SS), "answer", answer[:])...)); back.Expect != "open" {
		t.Errorf("a wrong answer to a challenge: %s", back.Expect)
	}

	// Links.
	join := links.Join{Vault: w.vault, Ceremony: random32(), Storefront: "https://store.example", Owners: "https://[::1]:8443"}
	for _, link := range []string{join.String(), links.Contact{Role: "owner", ID: w.owner.id, Nonce: w.nonce}.String(), links.Contact{Role: "reader", ID: w.reader.id}.String()} {
		read := ok[map[string]string](t, p, operation("make", "link", "link", link))
		for name, value := range read {
			if name != "kind" && !strings.Contains(link, value) && value != join.Storefront && value != join.Owners {
				t.Errorf("%s: %s is %q", link, name, value)
			}
		}
	}
}

// TestHTTPSignatures: requests that JavaScript signs are accepted, and not if anything is changed.
func TestHTTPSignatures(t *testing.T) {
	p := open(t)
	for i, path := range []string{"/v1/grants", "/v1/grants?after=3", "/", "/v1/owners/a%2Fb/items/x?"} {
		login, body := policies.NewDocumentID(), []byte(strings.Repeat("x", i))
		bare, query, question := strings.Cut(path, "?")
		if question {
			query = "?" + query
		}
		signed := ok[struct {
			Key     bin
			Headers map[string]string
		}](t, p, operation("make", "signed-request", "login", login, "time", int64(made), "method", "POST", "authority", "store.example:8443", "path", bare, "query", query, "body", body))
		check := func(r *http.Request, body []byte) error {
			for name, value := range signed.Headers {
				r.Header.Set(name, value)
			}
			s, err := api.ParseSignature(r)
			if err != nil {
				return err
			}
			if s.Login != login {
				return fmt.Errorf("login %s, want %s", s.Login, login)
			}
			return s.Verify(r, body, envelope.SessionPublicKey(signed.Key), time.Unix(made, 0))
		}
		if err := check(need(http.NewRequest("POST", "https://STORE.example:8443"+path, nil))(t), body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, wrong := range []string{"GET https://store.example:8443" + path, "POST https://store.example" + path, "POST https://store.example:8443" + path + "x"} {
			method, url, _ := strings.Cut(wrong, " ")
			if check(need(http.NewRequest(method, url, nil))(t), body) == nil {
				t.Errorf("accepted for %s", wrong)
			}
		}
		if check(need(http.NewRequest("POST", "https://store.example:8443"+path, nil))(t), append(body, 'y')) == nil {
			t.Errorf("%s: accepted with another body", path)
		}
	}
}
