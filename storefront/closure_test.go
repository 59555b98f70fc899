package storefront

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/storefront/internal/store"
)

func (p *party) closure() *envelope.Envelope {
	p.w.t.Helper()
	env, err := policies.Sign(p.signer, &policies.Closure{
		Header: policies.NewHeader("closure", time.Now()), Audience: p.w.doc.Vault, Owner: p.owner(), Link: policies.Link{Seq: p.seq + 1, Prev: p.prev},
	})
	p.w.must(err)
	return env
}

// about are the records that have an id in their key, but for the one that says that it is closed.
func (w *world) about(id policies.IdentityID) (kinds string) {
	w.t.Helper()
	w.must(w.front.each(w.t.Context(), nil, nil, func(r store.Record) error {
		if bytes.Contains(r.Key, id[:]) && r.Key[0] != kindClosed || bytes.Contains(r.Value, []byte(id.String())) && r.Key[0] != kindClosed {
			kinds += string(r.Key[:1])
		}
		return nil
	}))
	return kinds
}

// TestClosure: when the vault has acknowledged it, everything that has the owner's id is deleted, in whichever corner it lies, and others keep what is theirs. A crash in between
// is finished by the next start. Nothing of that owner is taken again.
func TestClosure(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t, Limits{})
		o, other, shop := w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindBusiness)
		for _, p := range []*party{o, other} {
			p.publish([]api.Item{p.set("name", "n"), p.set("phone", "p")})
			p.give(shop, "delivery", "name")
		}
		for _, p := range []*party{o, other} {
			rel, err := policies.Sign(shop.signer, &policies.Relationship{
				Header: policies.NewHeader("relationship", time.Now()), Audience: w.doc.Vault, Reader: policies.ReaderID(shop.id), Owner: p.owner(),
				KEMKey: make([]byte, policies.KEMPublicKeySize), Nonce: policies.NewNonce(),
			})
			w.must(err)
			w.must(shop.do("POST", api.PathRelationships, rel.Raw, nil))
		}
		w.must(shop.writes(message(shop, o, "hello")))
		w.must(o.registers(1, registry.Introduced))
		w.must(other.registers(1, registry.Introduced))
		w.must(other.looksUp(o, o.introduces(o, other, nil)))
		w.must(o.looksUp(other, other.introduces(other, o, nil)))
		before := w.about(shop.id)
		if kinds := w.about(o.id); len(kinds) < 10 {
			t.Fatalf("there are only %q: nothing is tested", kinds)
		}
		late := o.sign()
		path := fill(api.PathClosure, o.id)
		wantCode(t, other.do("POST", path, o.closure().Raw, nil), policies.CodeUnauthorized)
		wantCode(t, o.do("POST", path, other.closure().Raw, nil), policies.CodeUnauthorized)
		closing, again := o.closure().Raw, fill(api.PathSuccessions, o.id)
		wantCode(t, o.open("POST", again, closing, nil), policies.CodeUnauthorized) // it is not closed, and nobody is logged in
		if crash {
			w.store.set(nil, func(changes []store.Change) error {
				if len(changes) == 1 && changes[0].Key[0] == kindClosed {
					return nil
				}
				return errors.New("killed")
			})
		}
		w.must(o.do("POST", path, closing, nil))
		if crash {
			w.must(w.db.Commit(t.Context(), store.Change{Key: key(kindSuccession, o.id[:], policies.U64(1<<32)), Version: 1, Value: []byte("{}")})) // of a key that it had
			w.crash()
		}
		for begin := time.Now(); w.about(o.id) != "" && time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		}
		if kinds := w.about(o.id); kinds != "" {
			t.Errorf("crash %v: there are still %q", crash, kinds)
		}
		if kinds := w.about(shop.id); len(kinds) >= len(before) || kinds == "" {
			t.Errorf("crash %v: of the reader there are %q, and were %q", crash, kinds, before)
		}
		wantCode(t, o.open("GET", fill(api.PathIdentity, o.id), nil, nil), policies.CodeClosed)
		wantCode(t, o.open("POST", api.PathIdentities, o.identity.Raw, nil), policies.CodeClosed)
		wantCode(t, o.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: o.id, Key: envelope.NewSessionKey().Public()}, nil), policies.CodeClosed)
		wantCode(t, o.post(late, nil), policies.CodeUnauthorized)
		// Who has the document that closed it gets the vault's receipt again, and no other document does.
		receipt := new(evidence.Receipt)
		w.must(o.open("POST", again, closing, receipt))
		if e, err := envelope.Parse(closing); err != nil || receipt.Document != policies.Hash(e.Hash) {
			t.Errorf("the receipt is of %s: %v", receipt.Document, err)
		}
		wantCode(t, o.open("POST", again, other.closure().Raw, nil), policies.CodeMalformed)
		// Another device's closing, which is refused, gets the receipt of the one before.
		err := o.open("POST", again, o.closure().Raw, nil)
		wantCode(t, err, policies.CodeClosed)
		if proof := problem.Of(err).Receipt; proof == nil || proof.Document != receipt.Document {
			t.Errorf("the refusal of another closing proves nothing: %v", proof)
		}
		// A stranger's document costs the vault nothing.
		asked := w.vault.asked("closure")
		forged, err := policies.Sign(other.signer, &policies.Closure{
			Header: policies.NewHeader("closure", time.Now()), Audience: w.doc.Vault, Owner: o.owner(), Link: policies.Link{Seq: o.seq + 1, Prev: o.prev},
		})
		w.must(err)
		err = o.open("POST", again, forged.Raw, nil)
		wantCode(t, err, policies.CodeClosed)
		if n := w.vault.asked("closure"); n != asked || problem.Of(err).Receipt != nil {
			t.Errorf("a stranger's closing went to the vault: %v, %d times", err, n-asked)
		}
		other.logIn()
		w.must(other.do("GET", fill(api.PathMirror, other.id)+"?author="+other.id.String(), nil, nil))
	}
}

// TestAheadOfAClosedAccount: what waits for its manifest when the account is closed is dropped with the rest, and so is what comes while that is under way, of
// the owner and of who writes for them: a login ends a moment after the account.
func TestAheadOfAClosedAccount(t *testing.T) {
	w := newWorld(t, loose)
	o, other := w.member(policies.KindPerson), w.member(policies.KindPerson)
	w.must(o.ahead(o.sign(), o.set("name", "n")))
	w.must(other.ahead(other.sign(), other.set("name", "m")))
	late := func(p *party, k slot) error {
		in, err := parseItems(&api.Publication{Items: []api.Item{p.set("mail", "late")}}, own(p.owner()))
		w.must(err)
		return w.front.ahead(t.Context(), k, in)
	}
	beyond := slot{other.owner(), policies.AuthorID(o.id)} // where who closes their account writes for another
	w.must(late(o, beyond))
	w.must(o.do("POST", fill(api.PathClosure, o.id), o.closure().Raw, nil))
	for begin, r := time.Now(), (closureRecord{}); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		if _, err := w.front.load(t.Context(), key(kindClosed, o.id[:]), &r); err == nil && r.Closure == nil {
			break
		}
		r = closureRecord{}
	}
	for k := range w.front.early.slots {
		if k != own(other.owner()) {
			t.Errorf("items of owner %s and author %s are remembered", k.owner, k.author)
		}
	}
	wantCode(t, late(o, own(o.owner())), policies.CodeClosed)
	wantCode(t, late(o, beyond), policies.CodeClosed)
	w.must(late(other, own(other.owner())))

	// It is stored after the rest was deleted: by whoever looked whether the account is closed before it was.
	k := slot{o.owner(), policies.AuthorID(other.id)}
	written := o.leaves["name"]
	written.Author = k.author
	l, err := newLeaf(written.Bytes(), 1)
	w.must(err)
	in := &items{leaves: []*leaf{l}, bodies: map[policies.Hash][]byte{l.CiphertextHash: []byte("n")}}
	pending := &tree{manifest: policies.Manifest{Owner: k.owner, Author: k.author}, raw: o.sign().Raw, leaves: in.leaves}
	_, err = w.front.writePending(t.Context(), k, new(shelf), pending, in)
	w.must(err)
	if w.about(o.id) == "" {
		t.Fatal("nothing is tested")
	}
	w.front.collectDue(t.Context(), time.Now().Add(2*earlyFor))
	if kinds := w.about(o.id); kinds != "" {
		t.Errorf("there are still %q", kinds)
	}
}

// TestNoLoginWhileDeleting: nobody logs in to an account that is closed, also not while its key is still there to be deleted: such a login would outlast the key.
func TestNoLoginWhileDeleting(t *testing.T) {
	w := newWorld(t, Limits{})
	o := w.member(policies.KindPerson)
	logIn := func() error {
		var c api.LoginChallenge
		if err := o.open("POST", api.PathChallenges, api.ChallengeRequest{Subject: o.id, Key: o.key.Public()}, &c); err != nil {
			return err
		}
		return o.open("POST", api.PathLogins, api.LoginAnswer{ID: c.ID, Proof: o.answer(&c, o.host())}, new(api.Login))
	}
	w.must(logIn())
	w.must(w.front.markClosed(t.Context(), o.id, &closureRecord{Closure: o.closure().Raw}))
	if err := logIn(); !errors.Is(err, policies.CodeClosed) {
		t.Errorf("logging in: %v", err)
	}
	if err := o.do("GET", api.PathMessages, nil, nil); !errors.Is(err, policies.CodeUnauthorized) {
		t.Errorf("with the login before: %v", err)
	}
}

// TestReaderClosed: who had let an account read or write is left the vault's receipt of its closing, once, in the order of the log and over a crash at any step. What they had granted it is not there any
// more, and their revocation of it is taken all the same. Others hear nothing.
func TestReaderClosed(t *testing.T) {
	for name, arm := range map[string]func(*world){
		"nothing":           func(*world) {},
		"before it is told": func(w *world) { w.store.set(failFrom(2), nil) },
		"after one is told": func(w *world) { w.store.set(failFrom(3), nil) },
		"while it is told":  func(w *world) { w.store.set(nil, failFrom(2)) },
		"while it is wiped": func(w *world) { w.store.set(failFrom(5), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, loose)
			anna, bert, cleo, acme, shop := w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
			for _, p := range []*party{anna, bert, cleo} {
				p.publish([]api.Item{p.set("name", "n"), p.set("phone", "p")})
			}
			g := anna.give(acme, "billing", "name")
			anna.give(acme, "billing", "phone")
			other := anna.give(shop, "billing", "name")
			bert.give(acme, "billing", "name")
			closing := acme.closure()
			arm(w)
			w.must(acme.do("POST", fill(api.PathClosure, acme.id), closing.Raw, nil))
			if name != "nothing" {
				w.crash()
				for _, p := range []*party{anna, bert, cleo, shop} {
					p.logIn()
				}
			}
			for begin := time.Now(); w.about(acme.id) != "" && time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			}
			// What comes later is behind it.
			w.must(shop.do("POST", api.PathRenunciations, shop.givesUp(anna, other.ID, "name").Raw, nil))
			for _, c := range []struct {
				who  *party
				want int
			}{{anna, 2}, {bert, 1}, {cleo, 0}} {
				var heard api.Renunciations
				w.must(c.who.do("GET", api.PathRenunciations, nil, &heard))
				if len(heard.Renunciations) != c.want {
					t.Fatalf("heard of %d, want %d", len(heard.Renunciations), c.want)
				}
				for i, one := range heard.Renunciations {
					if i > 0 {
						if one.Index <= heard.Renunciations[i-1].Index || len(one.Document) == 0 {
							t.Errorf("behind it: %+v", one)
						}
						continue
					}
					_, entry, d, err := one.Receipt.Verify(w.doc, closing.Hash)
					if err != nil || entry.Kind != evidence.EntryClosure || d.Owner != acme.owner() || len(one.Document) != 0 {
						t.Errorf("a %s of %s: %v", entry.Kind, d.Owner, err)
					}
				}
			}
			w.must(anna.submit(api.PathRevocations, anna.revocation(g, "name")))
			anna.give(shop, "billing", "phone")
			var r closureRecord
			if _, err := w.front.load(t.Context(), key(kindClosed, acme.id[:]), &r); err != nil || r.Receipt != nil {
				t.Errorf("the receipt is kept: %v", err)
			}
			w.must(w.front.each(t.Context(), nil, nil, func(r store.Record) error {
				if bytes.Contains(r.Value, acme.id[:]) && r.Key[0] != kindClosed {
					t.Errorf("a record of kind %q names the account", r.Key[0])
				}
				return nil
			}))
		})
	}
}

// TestGrantStoredAfterItsReaderClosed: the vault accepted a grant past this storefront, and its reader closed the account. When the storefront hears of the grant, the owner is left the receipt too, and
// nothing of the account stays.
func TestGrantStoredAfterItsReaderClosed(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme := w.member(policies.KindPerson), w.member(policies.KindBusiness)
	anna.publish([]api.Item{anna.set("name", "n")})
	_, sub := anna.grant(acme, "billing", "name")
	_, err := w.vault.Submit(t.Context(), sub)
	w.must(err)
	closing := acme.closure()
	w.must(acme.do("POST", fill(api.PathClosure, acme.id), closing.Raw, nil))
	for begin := time.Now(); w.about(acme.id) != "" && time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
	}
	for range 2 {
		w.must(anna.submit(api.PathGrants, sub))
		var heard api.Renunciations
		w.must(anna.do("GET", api.PathRenunciations, nil, &heard))
		if len(heard.Renunciations) != 1 {
			t.Fatalf("heard of %d", len(heard.Renunciations))
		}
		if _, entry, d, err := heard.Renunciations[0].Receipt.Verify(w.doc, closing.Hash); err != nil || entry.Kind != evidence.EntryClosure || d.Owner != acme.owner() {
			t.Errorf("a %s of %s: %v", entry.Kind, d.Owner, err)
		}
		if kinds := w.about(acme.id); kinds != "" {
			t.Errorf("there are still %q", kinds)
		}
	}
}

// failFrom fails from the nth commit on.
func failFrom(n int) func([]store.Change) error {
	return func([]store.Change) error {
		if n--; n <= 0 {
			return errInjected
		}
		return nil
	}
}
