package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// author is somebody who writes for an owner.
type author struct {
	party
	o        *owner
	version  uint64
	manifest policies.Hash
	leaves   map[policies.Field]policies.Leaf
	texts    map[policies.Hash][]byte
	tree     *policies.Tree
}

func (o *owner) author(p party) *author {
	return &author{party: p, o: o, leaves: map[policies.Field]policies.Leaf{}, texts: map[policies.Hash][]byte{}}
}

// seal writes with nothing but the point of the slot, as an author does.
func (a *author) seal(f policies.Field, epoch, version uint64, value string) {
	a.w.t.Helper()
	slot := policies.Slot{Owner: policies.OwnerID(a.o.id), Field: f, Epoch: epoch, Author: policies.AuthorID(a.id)}
	field, err := a.o.root.FieldKey(slot)
	must(a.w.t, err)
	point, err := field.Author()
	must(a.w.t, err)
	leaf, text, err := point.Seal(version, []byte(value), nil)
	must(a.w.t, err)
	a.leaves[f], a.texts[leaf.CiphertextHash] = leaf, text
}

func (a *author) manifestOf(change func(*policies.Manifest)) (api.Submission, *policies.Tree, policies.Hash) {
	var leaves []policies.Leaf
	for _, l := range a.leaves {
		leaves = append(leaves, l)
	}
	tree, err := policies.NewTree(leaves)
	must(a.w.t, err)
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", a.w.clock.now()), Audience: a.w.document.Vault, Owner: policies.OwnerID(a.o.id), Author: policies.AuthorID(a.id),
		Link: policies.Link{Seq: a.version + 1, Prev: a.manifest}, Version: a.version + 1, PrevManifest: a.manifest, TreeSize: tree.Size(), Root: tree.Root(),
	}
	if change != nil {
		change(m)
	}
	e, err := policies.Sign[policies.Manifest](a.key, m)
	must(a.w.t, err)
	return api.Submission{Envelope: e.Raw}, tree, e.Hash
}

func (a *author) publish() {
	a.w.t.Helper()
	s, tree, hash := a.manifestOf(nil)
	a.w.accepted(s)
	a.version, a.manifest, a.tree = a.version+1, hash, tree
}

func (a *author) set(f policies.Field, value string) {
	a.w.t.Helper()
	a.seal(f, 1, a.version+1, value)
	a.publish()
}

func (o *owner) writeGrantOf(p party, change func(*writing.Grant), fields ...policies.Field) (api.Submission, *writing.Grant, policies.Hash) {
	o.w.t.Helper()
	now := o.w.clock.now().Unix()
	g := &writing.Grant{
		Header: policies.NewHeader("write-grant", o.w.clock.now()), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
		Writer: policies.AuthorID(p.id), Purpose: testPurpose, NotBefore: now - 60, Expires: now + 86400,
	}
	for _, f := range fields {
		g.Fields = append(g.Fields, writing.Field{Field: f, Epoch: 1})
	}
	if change != nil {
		change(g)
	}
	g.Sealed = make([]byte, 1120+33*len(g.Fields)+16)
	e, err := policies.Sign[writing.Grant](o.key, g)
	must(o.w.t, err)
	return api.Submission{Envelope: e.Raw}, g, e.Hash
}

func (o *owner) letWrite(p party, change func(*writing.Grant), fields ...policies.Field) *writing.Grant {
	o.w.t.Helper()
	s, g, hash := o.writeGrantOf(p, change, fields...)
	o.w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	return g
}

func (o *owner) writeEndOf(a *author, keep bool, g *writing.Grant, fields ...policies.Field) (api.Submission, policies.Hash) {
	d := &writing.End{
		Header: policies.NewHeader("write-end", o.w.clock.now()), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
		Writer: policies.AuthorID(a.id), Last: writing.Last{Version: a.version, Manifest: a.manifest},
	}
	for _, f := range fields {
		item := writing.Ended{Grant: g.ID, Field: f}
		if l, ok := a.leaves[f]; ok && keep {
			item.Kept = l.Hash()
		}
		d.Items = append(d.Items, item)
	}
	e, err := policies.Sign[writing.End](o.key, d)
	must(o.w.t, err)
	return api.Submission{Envelope: e.Raw}, e.Hash
}

func (o *owner) endWriting(a *author, keep bool, g *writing.Grant, fields ...policies.Field) {
	o.w.t.Helper()
	s, hash := o.writeEndOf(a, keep, g, fields...)
	o.w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
}

// grantAuthor lets a reader read what an author writes.
func (o *owner) grantAuthor(r *reader, a *author, epoch uint64, fields ...policies.Field) *policies.Grant {
	t, now := o.w.t, o.w.clock.now()
	t.Helper()
	ct, secret, err := pre.NewGrantSecret(r.readerKey(o).Public(), nil)
	must(t, err)
	g := &policies.Grant{
		Header: policies.NewHeader("grant", now), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
		Reader: policies.ReaderID(r.id), Relationship: policies.Hash{1}, Custody: o.w.custody, Rights: []policies.Right{policies.RightRead},
		Purpose: testPurpose, NotBefore: now.Unix() - 60, Expires: now.Unix() + 30*86400, Ciphertext: ct,
	}
	var keys [][]byte
	for _, f := range fields {
		field, err := o.root.FieldKey(policies.Slot{Owner: policies.OwnerID(o.id), Field: f, Epoch: epoch, Author: policies.AuthorID(a.id)})
		must(t, err)
		rk, err := secret.ReEncryptionKey(g.ID, g.Reader, field)
		must(t, err)
		keys = append(keys, rk.PKCS8())
		g.Fields = append(g.Fields, policies.GrantedField{Field: f, Epoch: epoch, Author: policies.AuthorID(a.id), Keys: []policies.WrappedKey{
			{Token: testSerial, ImportKey: o.w.importKey(), Path: testPath, Digest: sha256.Sum256(rk.PKCS8())},
		}})
	}
	e, err := policies.Sign[policies.Grant](o.key, g)
	must(t, err)
	s := api.Submission{Envelope: e.Raw}
	for i, f := range g.Fields {
		info, err := pre.ImportInfo(o.w.document.Vault, e.Hash, f.Field, f.Epoch, f.Author)
		must(t, err)
		sealed, err := pre.SealBlob(o.w.document.ImportHPKE, info, keys[i])
		must(t, err)
		s.Keys = append(s.Keys, api.SealedKey{Field: f.Field, Author: f.Author, Token: testSerial, Sealed: sealed})
	}
	o.w.accepted(s)
	o.seq, o.prev = o.seq+1, e.Hash
	return g
}

// readFrom asks for what an author wrote, offered honestly.
func (r *reader) readFrom(a *author, g *policies.Grant, f policies.Field) (policies.AnswerItem, string) {
	r.w.t.Helper()
	e := r.requestOf(func(d *policies.ReadRequest) { d.Items[0].Author = policies.AuthorID(a.id) }, ask{o: a.o, field: f})
	leaf, index, ok := a.tree.Find(f)
	item := api.CallItem{Grant: g.ID, Head: a.manifest}
	if ok {
		var err error
		item.Leaf = leaf.Bytes()
		item.Proof, err = a.tree.Prove(index)
		must(r.w.t, err)
		item.Point, err = pre.Decompress(&leaf.Capsule)
		must(r.w.t, err)
	}
	answer := r.open(r.w.vault.Reencrypt(context.Background(), []api.Call{{Request: e.Raw, Items: []api.CallItem{item}}})[0], e)
	got := answer.Items[0]
	if got.Outcome != policies.CodeReleased {
		return got, ""
	}
	secret, err := r.readerKey(a.o).OpenGrant(g.Ciphertext)
	must(r.w.t, err)
	value, err := secret.Open(g.ID, g.Reader, leaf, got.X, a.texts[leaf.CiphertextHash])
	must(r.w.t, err)
	return got, string(value)
}

func refusedWith(t *testing.T, w *world, s api.Submission, want policies.Code) {
	t.Helper()
	if _, err := w.submit(s); !errors.Is(err, want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The newest of an owner's and a writer's items is told by the order in which the vault accepted them, whatever happens to the vault in between.
func TestWriterAndOwnerInTheVaultsOrder(t *testing.T) {
	for name, restart := range map[string]func(*world){
		"running": func(*world) {}, "killed": func(w *world) { w.restart(true) }, "no database": func(w *world) { w.restart(false) },
		"stopped": func(w *world) { must(w.t, w.vault.Close(context.Background())); w.log.Close(); w.reopen(true) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o, r := w.owner(), w.reader()
			o.set("phone.mobile", "one")
			o.set("phone.mobile", "two")
			own := o.grant(r, nil, "phone.mobile")
			before := r.read(ask{o, own, "phone.mobile", 0}).Items[0]
			if before.Outcome != policies.CodeReleased || before.Accepted != 0 {
				t.Fatalf("an owner without writers: %v", before)
			}
			a := o.author(w.enrol())
			g := o.letWrite(a.party, nil, "phone.mobile")
			theirs := o.grantAuthor(r, a, 1, "phone.mobile")
			a.set("phone.mobile", "by the business")
			restart(w)
			r.openSession()
			written, value := r.readFrom(a, theirs, "phone.mobile")
			if value != "by the business" || written.Accepted == 0 {
				t.Fatalf("%v %q", written, value)
			}
			if mine := r.read(ask{o, own, "phone.mobile", 0}).Items[0]; mine.Outcome != policies.CodeReleased || mine.Accepted != 0 {
				t.Fatalf("the owner's item from before: %v", mine)
			}
			o.set("email.home", "another field")
			o.set("phone.mobile", "three")
			// The leaf is sealed for version 3, and the owner's manifest is version 4: its place is that of the manifest whose number it has.
			mine := r.read(ask{o, own, "phone.mobile", 0}).Items[0]
			if mine.Outcome != policies.CodeReleased || mine.Accepted <= written.Accepted {
				t.Fatalf("the owner wrote last: %v after %v", mine, written)
			}
			a.set("phone.mobile", "again")
			if again, value := r.readFrom(a, theirs, "phone.mobile"); value != "again" || again.Accepted <= mine.Accepted {
				t.Fatalf("the writer wrote last: %v %q", again, value)
			}
			o.endWriting(a, true, g, "phone.mobile")
			restart(w)
			r.openSession()
			if kept, value := r.readFrom(a, theirs, "phone.mobile"); value != "again" {
				t.Fatalf("what was kept: %v", kept)
			}
			s, _, _ := a.manifestOf(nil)
			refusedWith(t, w, s, policies.CodeWriteEnded)
		})
	}
}

// Nobody publishes for an owner without a write grant that is in force.
func TestWhoMayPublish(t *testing.T) {
	w := newWorld(t)
	o, other := w.owner(), w.owner()
	p := w.enrol()
	a := o.author(p)
	a.seal("phone.mobile", 1, 1, "x")
	manifest := func() api.Submission { s, _, _ := a.manifestOf(nil); return s }
	refusedWith(t, w, manifest(), policies.CodeNoWriteGrant)
	other.letWrite(p, nil, "phone.mobile")
	refusedWith(t, w, manifest(), policies.CodeNoWriteGrant)
	o.letWrite(w.enrol(), nil, "phone.mobile")
	refusedWith(t, w, manifest(), policies.CodeNoWriteGrant)
	now := w.clock.now().Unix()
	o.letWrite(p, func(g *writing.Grant) { g.NotBefore, g.Expires = now+3600, now+7200 }, "phone.mobile")
	refusedWith(t, w, manifest(), policies.CodeNotYet)
	w.clock.move(3700e9)
	s := manifest()
	first := w.accepted(s)
	if again := w.accepted(s); again.Evidence.Index != first.Evidence.Index {
		t.Error("the same manifest again got the receipt of another entry")
	}
	refusedWith(t, w, manifest(), policies.CodeChain) // another one in its place
	var p2 *problem.Problem
	if _, err := w.submit(manifest()); !errors.As(err, &p2) || p2.Receipt == nil || p2.Receipt.Evidence.Index != first.Evidence.Index {
		t.Errorf("chain_moved tells a writer of their own newest manifest and nothing of the owner's chain: %v", err)
	}
	w.clock.move(3700e9)
	refusedWith(t, w, manifest(), policies.CodeWriteEnded)
}

// What is not right about a write grant, or the end of one, is refused.
func TestWriteGrantsRefused(t *testing.T) {
	w := newWorld(t)
	o, p := w.owner(), w.enrol()
	s, g, hash := o.writeGrantOf(p, nil, "phone.mobile")
	first := w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	if again := w.accepted(s); again.Evidence.Index != first.Evidence.Index {
		t.Error("the same write grant again got the receipt of another entry")
	}
	replayed, _, _ := o.writeGrantOf(p, func(d *writing.Grant) { d.ID = g.ID }, "phone.mobile")
	refusedWith(t, w, replayed, policies.CodeExists)
	stale, _, _ := o.writeGrantOf(p, func(d *writing.Grant) { d.Seq, d.Prev = 1, policies.Hash(o.id) }, "phone.mobile")
	refusedWith(t, w, stale, policies.CodeChain)
	elsewhere, _, _ := o.writeGrantOf(p, func(d *writing.Grant) { d.Audience = policies.VaultID{8} }, "phone.mobile")
	refusedWith(t, w, elsewhere, policies.CodeWrongVault)
	stranger, _ := w.identity()
	unknown, _, _ := o.writeGrantOf(stranger, nil, "phone.mobile")
	refusedWith(t, w, unknown, policies.CodeUnknown)
	forged, _, _ := (&owner{party: party{w, p.key, o.id, nil}, root: o.root, seq: o.seq, prev: o.prev}).writeGrantOf(p, nil, "phone.mobile")
	if _, err := w.submit(forged); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("signed by the writer: %v", err)
	}

	a := o.author(p)
	end := func(change func(*author)) api.Submission {
		b := *a
		change(&b)
		s, _ := o.writeEndOf(&b, false, g, "phone.mobile")
		return s
	}
	refusedWith(t, w, end(func(b *author) { b.version, b.manifest = 1, policies.Hash{1} }), policies.CodeNotFound)
	refusedWith(t, w, end(func(b *author) { b.id = o.id }), policies.CodeNotFound)
	a.set("phone.mobile", "x")
	refusedWith(t, w, end(func(b *author) { b.version = 2 }), policies.CodeNotFound)
	refusedWith(t, w, end(func(b *author) { b.manifest = o.prev }), policies.CodeNotFound)
	// The end may name an older manifest: a writer who publishes without a pause cannot hold it up.
	older := *a
	a.set("phone.mobile", "y")
	s, hash = o.writeEndOf(&older, true, g, "phone.mobile")
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
}

// Where a newer write grant takes the place of an older one, the end of the older names the writer's newest manifest: what the owner has not seen is not lost.
func TestEndWhileTheWriterGoesOn(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	a := o.author(w.enrol())
	g := o.letWrite(a.party, nil, "phone.mobile", "email.home")
	phone := o.grantAuthor(r, a, 1, "phone.mobile")
	nothing := *a
	a.set("phone.mobile", "p1")
	older := *a
	a.set("phone.mobile", "p2")
	next := o.letWrite(a.party, func(d *writing.Grant) { d.Fields[0].Epoch = 2 }, "phone.mobile")

	blind, _ := o.writeEndOf(&nothing, false, g, "phone.mobile") // as a device signs it that a storefront told that nothing was written
	refusedWith(t, w, blind, policies.CodeHeadMoved)
	stale, _ := o.writeEndOf(&older, true, g, "email.home", "phone.mobile")
	refusedWith(t, w, stale, policies.CodeHeadMoved)
	if got, _ := r.readFrom(a, phone, "phone.mobile"); got.Outcome != policies.CodeReleased {
		t.Fatalf("after the refusals: %s", got.Outcome)
	}
	o.endWriting(a, true, g, "phone.mobile")
	if got, _ := r.readFrom(a, phone, "phone.mobile"); got.Outcome != policies.CodeReleased {
		t.Errorf("what the end kept: %s", got.Outcome)
	}

	// Nobody holds up an end that stops the writer.
	a.set("email.home", "e")
	s, hash := o.writeEndOf(&older, true, next, "phone.mobile")
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	s, hash = o.writeEndOf(&nothing, false, g, "email.home")
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
}

// What a writer publishes beyond the write grant, before, after or beside it, is never released.
func TestWhatAWriterMayWrite(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	a := o.author(w.enrol())
	g := o.letWrite(a.party, nil, "phone.mobile", "email.home")
	phone, email := o.grantAuthor(r, a, 1, "phone.mobile"), o.grantAuthor(r, a, 1, "email.home")
	iban, second := o.grantAuthor(r, a, 1, "bank.iban"), o.grantAuthor(r, a, 2, "phone.mobile")
	outcome := func(name string, grant *policies.Grant, f policies.Field, want policies.Code) {
		t.Helper()
		if got, _ := r.readFrom(a, grant, f); got.Outcome != want {
			t.Errorf("%s: %s, want %s", name, got.Outcome, want)
		}
	}
	a.set("phone.mobile", "p1")
	a.set("email.home", "e1")
	outcome("granted", phone, "phone.mobile", policies.CodeReleased)
	a.set("bank.iban", "beyond")
	outcome("a field beyond the write grant", iban, "bank.iban", policies.CodeNoWriteGrant)
	a.seal("phone.mobile", 1, a.version+2, "from the future")
	a.publish()
	outcome("a version that no manifest has", phone, "phone.mobile", policies.CodeLeaf)
	a.seal("phone.mobile", 2, a.version+1, "another epoch")
	a.publish()
	outcome("an epoch beyond the write grant", second, "phone.mobile", policies.CodeNoWriteGrant)

	// Moved to epoch 2: the old grant is ended, with what it wrote last kept.
	a.set("phone.mobile", "p2")
	o.letWrite(a.party, func(d *writing.Grant) { d.Fields[0].Epoch = 2 }, "phone.mobile")
	o.endWriting(a, true, g, "phone.mobile")
	outcome("what was kept", phone, "phone.mobile", policies.CodeReleased)
	kept := a.leaves["phone.mobile"]
	a.set("email.home", "e2")
	outcome("what was kept, under a newer manifest", phone, "phone.mobile", policies.CodeReleased)
	a.set("phone.mobile", "with the old key")
	outcome("written in the old epoch after the end", phone, "phone.mobile", policies.CodeWriteEnded)
	a.seal("phone.mobile", 1, kept.Version, "new under an old number")
	a.publish()
	outcome("something new under the version that was kept", phone, "phone.mobile", policies.CodeWriteEnded)
	a.seal("phone.mobile", 2, a.version+1, "p3")
	a.publish()
	outcome("the new epoch", second, "phone.mobile", policies.CodeReleased)

	// Ended with nothing kept, while the other field goes on.
	o.endWriting(a, false, g, "email.home")
	outcome("nothing was kept", email, "email.home", policies.CodeWriteEnded)
	outcome("the other field", second, "phone.mobile", policies.CodeReleased)

	// Over: a manifest that another grant admits does not bring back what expired.
	w.clock.move(86400e9 * 2)
	r.openSession()
	outcome("written while it was in force", second, "phone.mobile", policies.CodeReleased)
	o.letWrite(a.party, nil, "bank.iban")
	a.set("bank.iban", "i1")
	outcome("a grant that expired before the head", second, "phone.mobile", policies.CodeWriteEnded)
	outcome("the grant in force", iban, "bank.iban", policies.CodeReleased)
}

// A write grant's first manifest is in the histories of owner and writer, and a stranger's refusals are in no owner's.
func TestWritersInHistories(t *testing.T) {
	w := newWorld(t)
	o, p := w.owner(), w.enrol()
	a := o.author(p)
	a.seal("phone.mobile", 1, 1, "x")
	s, _, _ := a.manifestOf(nil)
	refusedWith(t, w, s, policies.CodeNoWriteGrant)
	h, err := w.vault.History(policies.OwnerID(o.id), 0, 0)
	must(t, err)
	if len(h.Entries) != 1 { // the enrolment
		t.Errorf("a stranger's manifest is in the owner's history: %d entries", len(h.Entries))
	}
	o.letWrite(p, nil, "phone.mobile")
	w.accepted(s)
	var owned, read int
	w.vault.ledger.Read(func(s *ledgerState) {
		owned = len(s.History(o.id, ^uint64(0), 100))
		read = len(s.Readings(policies.ReaderID(p.id), ^uint64(0), 100))
	})
	if owned < 3 || read < 3 {
		t.Errorf("%d entries about the owner, %d about the writer", owned, read)
	}
}

// When an owner closes their account nobody writes for them any more, also after a replay.
func TestClosedAccountsHaveNoWriters(t *testing.T) {
	w := newWorld(t)
	o, p := w.owner(), w.enrol()
	a := o.author(p)
	o.letWrite(p, nil, "phone.mobile")
	a.set("phone.mobile", "x")
	e, err := policies.Sign[policies.Closure](o.key, &policies.Closure{
		Header: policies.NewHeader("closure", w.clock.now()), Audience: w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link(),
	})
	must(t, err)
	w.accepted(api.Submission{Envelope: e.Raw})
	a.seal("phone.mobile", 1, 2, "y")
	s, _, _ := a.manifestOf(nil)
	for range 2 {
		refusedWith(t, w, s, policies.CodeClosed)
		w.vault.ledger.Read(func(s *ledgerState) {
			if s.Shared(policies.OwnerID(o.id)) || len(s.Writings(policies.OwnerID(o.id), policies.AuthorID(a.id))) != 0 {
				t.Error("the state still has a writer")
			}
		})
		w.restart(true)
	}
}
