package vault

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// successionOf makes the succession of an identity to the keys of a seed, as the next document of its chain. change bends it before it is signed.
func (p *party) successionOf(link policies.Link, seed byte, authority *envelope.PrivateKey, change func(*succession.Document)) (*succession.Document, *envelope.Envelope) {
	p.w.t.Helper()
	next := newSigner(seed)
	var line succession.Line
	p.w.vault.ledger.Read(func(s *ledgerState) { line = s.Identity(p.id).Line() })
	h := line.Newest()
	d := &succession.Document{
		Header: policies.NewHeader("succession", p.w.clock.now()), Audience: p.w.document.Vault, Identity: p.id, Link: link,
		Generation: h.Generation + 1, Previous: h.Document, SigningKey: publicBytes(next),
		KEMKey: pre.NewBlobKey([32]byte{seed, 1}).Public(), LoginKey: pre.NewBlobKey([32]byte{seed, 2}).Public(),
		RecoveryHash: policies.HashKey(publicBytes(recoveryKey(seed))), RecoveryKey: publicBytes(authority), Reason: succession.Stolen,
	}
	if change != nil {
		change(d)
	}
	e, err := succession.Sign(d, next, authority)
	must(p.w.t, err)
	return d, e
}

func (p *party) noticeOf(link policies.Link, successor policies.Hash) *envelope.Envelope {
	e, err := policies.Sign(p.key, &succession.Notice{
		Header: policies.NewHeader("succession-notice", p.w.clock.now()), Audience: p.w.document.Vault, Identity: p.id, Link: link, Successor: successor,
	})
	must(p.w.t, err)
	return e
}

// take moves an owner's chain on.
func (o *owner) take(e *envelope.Envelope) {
	o.w.t.Helper()
	o.w.accepted(api.Submission{Envelope: e.Raw})
	o.seq, o.prev = o.seq+1, e.Hash
}

func (w *world) refuses(s api.Submission, want policies.Code, what string) {
	w.t.Helper()
	if _, err := w.submit(s); !errors.Is(err, want) {
		w.t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// TestSuccession: with the recovery key new keys are in force at once. The keys before sign nothing more, readers notice nothing, and all of it is so after
// a restart, from the database and from the log alone.
func TestSuccession(t *testing.T) {
	for _, database := range []bool{true, false} {
		w := newWorld(t)
		o, r := w.owner(), w.reader()
		o.set("name", "n1")
		g := o.grant(r, nil, "name")
		read := func() {
			t.Helper()
			if got := r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0]); got != "n1" {
				t.Fatalf("the reader has %q", got)
			}
		}
		read()
		thief := *o // holds the old key, and sees the chain
		_, first := o.successionOf(o.link(), 201, o.recovery, nil)
		o.take(first)
		o.key, o.recovery, thief.seq, thief.prev = newSigner(201), recoveryKey(201), o.seq, o.prev
		for range 2 {
			read()
			manifest, _, _ := thief.manifestOf(nil)
			w.refuses(manifest, policies.CodeKeyReplaced, "a manifest of the old key")
			grant, _, _ := thief.grantOf(r, nil, "name")
			w.refuses(grant, policies.CodeKeyReplaced, "a grant of the old key")
			revocation, _ := thief.revocationOf(nil, g, "name")
			w.refuses(revocation, policies.CodeKeyReplaced, "a revocation of the old key")
			w.refuses(api.Submission{Envelope: thief.noticeOf(thief.link(), policies.Hash{1}).Raw}, policies.CodeKeyReplaced, "a notice of the old key")
			_, again := thief.successionOf(thief.link(), 202, thief.recovery, nil)
			w.refuses(api.Submission{Envelope: again.Raw}, policies.CodeRecovery, "a succession of the old recovery key")
			w.accepted(api.Submission{Envelope: first.Raw}) // the same document, the same receipt
			must(t, w.vault.Close(t.Context()))
			w.log.Close()
			w.reopen(database)
			r.openSession()
		}
		// The thief's refusals are told to the owner.
		counted := false
		for _, rec := range w.records() {
			counted = counted || rec.Kind == evidence.EntryRefusals && rec.Details.Identity == o.id && strings.Contains(rec.Details.Note, string(policies.CodeKeyReplaced))
		}
		if !counted {
			t.Error("nothing in the log says that the old key was used")
		}
		o.set("name", "n2") // signed by the new key
		if got := r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0]); got != "n2" {
			t.Fatalf("the reader has %q", got)
		}
		// What the old key signed before is answered as ever.
		old, second := o.successionOf(o.link(), 203, o.recovery, nil)
		o.take(second)
		if old.Generation != 3 {
			t.Errorf("generation %d", old.Generation)
		}
		w.refuses(api.Submission{Envelope: reshuffled(t, first, func(d *succession.Document) { d.ID = policies.NewDocumentID() }, 201, thief.recovery).Raw}, policies.CodeSuccessionOld, "an older succession, signed again")
	}
}

// reshuffled is a succession that its makers sign again after a change.
func reshuffled(t *testing.T, e *envelope.Envelope, change func(*succession.Document), seed byte, authority *envelope.PrivateKey) *envelope.Envelope {
	t.Helper()
	d, err := policies.Decode[succession.Document](e)
	must(t, err)
	change(d)
	out, err := succession.Sign(d, newSigner(seed), authority)
	must(t, err)
	return out
}

// TestForgedSuccession: what is not signed by those who may decide it, or is not the next of the chain, changes nothing.
func TestForgedSuccession(t *testing.T) {
	w := newWorld(t)
	o, other := w.owner(), w.owner()
	o.set("name", "n1")
	for _, c := range []struct {
		what      string
		link      policies.Link
		authority *envelope.PrivateKey
		change    func(*succession.Document)
		want      policies.Code
	}{
		{"another's recovery key", o.link(), other.recovery, nil, policies.CodeRecovery},
		{"the signing key as the recovery key", o.link(), o.key, nil, policies.CodeRecovery},
		{"for another vault", o.link(), o.recovery, func(d *succession.Document) { d.Audience[0]++ }, policies.CodeWrongVault},
		{"not the next of the chain", policies.Link{Seq: o.seq + 2, Prev: o.prev}, o.recovery, nil, policies.CodeChain},
		{"over another document of the chain", policies.Link{Seq: o.seq + 1, Prev: policies.Hash{3}}, o.recovery, nil, policies.CodeChain},
		{"a generation left out", o.link(), o.recovery, func(d *succession.Document) { d.Generation++ }, policies.CodeSuccessionOld},
		{"never announced", o.link(), o.key, func(d *succession.Document) { d.RecoveryKey, d.Notice = nil, policies.Hash{4} }, policies.CodeSuccessionUnannounced},
	} {
		_, e := o.successionOf(c.link, 211, c.authority, c.change)
		w.refuses(api.Submission{Envelope: e.Raw}, c.want, c.what)
	}
	_, e := o.successionOf(o.link(), 211, o.recovery, nil)
	raw := strings.Replace(string(e.Raw), `"sig":"`, `"sig":"AA`, 1)
	if _, err := w.submit(api.Submission{Envelope: []byte(raw)}); err == nil {
		t.Error("a damaged signature was accepted")
	}
	o.set("name", "n2") // the old key is in force still
}

// TestSuccessionWithAnOldKey: a key that stays, of any of the three, is refused, after the first succession too: no client would follow it, and the identity would be lost for ever.
func TestSuccessionWithAnOldKey(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	kemKey := partyKEM()
	loginKey := kemKey
	for seed := byte(221); seed < 223; seed++ {
		for what, change := range map[string]func(*succession.Document){
			"KEM":   func(d *succession.Document) { d.KEMKey = kemKey },
			"login": func(d *succession.Document) { d.LoginKey = loginKey },
		} {
			_, e := o.successionOf(o.link(), seed, o.recovery, change)
			if _, err := w.submit(api.Submission{Envelope: e.Raw}); !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("seed %d, the %s key stays: %v", seed, what, err)
			}
		}
		d, e := o.successionOf(o.link(), seed, o.recovery, nil)
		o.take(e)
		o.key, o.recovery, kemKey, loginKey = newSigner(seed), recoveryKey(seed), d.KEMKey, d.LoginKey
	}
}

// TestSuccessionWithoutRecoveryKey: it is announced, takes 72 hours, and whoever holds the recovery key, or the key in force, ends it meanwhile.
func TestSuccessionWithoutRecoveryKey(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	o.set("name", "n1")
	without := func(seed byte, notice policies.Hash) (*succession.Document, *envelope.Envelope) {
		return o.successionOf(o.link(), seed, o.key, func(d *succession.Document) { d.RecoveryKey, d.Notice = nil, notice })
	}
	announce := func(seed byte) policies.Hash {
		planned, _ := without(seed, policies.Hash{1})
		notice := o.noticeOf(o.link(), planned.Successor())
		o.take(notice)
		return notice.Hash
	}
	notice := announce(221)
	w.refuses(api.Submission{Envelope: o.noticeOf(o.link(), policies.Hash{8}).Raw}, policies.CodeSuccessionPending, "a second one")
	_, e := without(221, notice)
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeSuccessionPending, "at once")
	w.clock.move(succession.Wait - time.Minute)
	_, e = without(221, notice)
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeSuccessionPending, "a minute too soon")
	_, e = without(222, notice)
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeSuccessionUnannounced, "other keys than announced")

	// Taken back: the time begins anew.
	o.take(o.noticeOf(o.link(), policies.Hash{}))
	w.clock.move(2 * time.Minute)
	_, e = without(221, notice)
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeSuccessionUnannounced, "taken back")

	notice = announce(221)
	w.clock.move(succession.Wait)
	w.restart(true)
	_, e = without(221, notice)
	o.take(e)
	o.key, o.recovery = newSigner(221), recoveryKey(221)
	o.set("name", "n2")

	// A thief has the key and not the recovery key. The owner sees the notice, and the recovery key outranks it.
	thief := *o
	notice = announce(223)
	_, e = o.successionOf(o.link(), 224, o.recovery, nil)
	o.take(e)
	o.key = newSigner(224)
	w.clock.move(succession.Wait + time.Hour)
	thief.seq, thief.prev = o.seq, o.prev
	_, e = thief.successionOf(thief.link(), 223, thief.key, func(d *succession.Document) { d.RecoveryKey, d.Notice = nil, notice })
	if _, err := w.submit(api.Submission{Envelope: e.Raw}); err == nil {
		t.Error("the thief's succession was accepted")
	}
	o.set("name", "n3")
}

// TestSuccessionOfAReader: sessions that the keys before opened are over.
func TestSuccessionOfAReader(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n1")
	g := o.grant(r, nil, "name")
	a := ask{o, g, "name", 0}
	r.value(a, r.read(a).Items[0])
	call, _ := r.callOf(nil, a) // signed before
	thief, _, _, _ := r.sessionOf(nil)
	_, e := r.successionOf(policies.Link{Seq: 1, Prev: policies.Hash(r.id)}, 231, r.recovery, nil)
	w.accepted(api.Submission{Envelope: e.Raw})
	for range 2 {
		derives := w.token.count()
		if reply := w.vault.Reencrypt(t.Context(), []api.Call{call})[0]; reply.Code != policies.CodeSession || w.token.count() != derives {
			t.Fatalf("a read in a session of the old key: %q", reply.Code)
		}
		w.refuses(thief, policies.CodeKeyReplaced, "a session of the old key")
		w.restart(false)
	}
	r.key = newSigner(231)
	r.openSession()
	if got := r.value(a, r.read(a).Items[0]); got != "n1" {
		t.Errorf("the reader has %q", got)
	}
}

// TestSuspension: a reader suspends all that it has, of all owners, at once. What it is granted afterwards it reads, and the order cannot be replayed against that.
func TestSuspension(t *testing.T) {
	w := newWorld(t)
	r, other := w.reader(), w.reader()
	var asks []ask
	for range 2 {
		o := w.owner()
		o.set("name", "n")
		asks = append(asks, ask{o, o.grant(r, nil, "name"), "name", 0})
	}
	theirs := ask{asks[0].o, asks[0].o.grant(other, nil, "name"), "name", 0}
	suspensionOf := func(link policies.Link, by *envelope.PrivateKey) *envelope.Envelope {
		e, err := policies.Sign(by, &succession.Suspension{
			Header: policies.NewHeader("suspension", w.clock.now()), Audience: w.document.Vault, Reader: policies.ReaderID(r.id), Link: link,
		})
		must(t, err)
		return e
	}
	first := policies.Link{Seq: 1, Prev: policies.Hash(r.id)}
	if _, err := w.submit(api.Submission{Envelope: suspensionOf(first, other.key).Raw}); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("of another reader: %v", err)
	}
	w.refuses(api.Submission{Envelope: suspensionOf(policies.Link{Seq: 2, Prev: first.Prev}, r.key).Raw}, policies.CodeChain, "not the next of the chain")
	r.value(asks[0], r.read(asks...).Items[0])
	order := suspensionOf(first, r.key)
	w.accepted(api.Submission{Envelope: order.Raw})
	derives := w.token.count()
	for _, database := range []bool{true, false} {
		for i, item := range r.read(asks...).Items {
			if item.Outcome != policies.CodeSuspended {
				t.Errorf("item %d: %s", i, item.Outcome)
			}
		}
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
		r.openSession()
		other.openSession()
	}
	if w.token.count() != derives {
		t.Error("a suspended key was used")
	}
	other.value(theirs, other.read(theirs).Items[0])
	again := ask{asks[1].o, asks[1].o.grant(r, nil, "name"), "name", 0}
	w.accepted(api.Submission{Envelope: order.Raw}) // the same receipt, and nothing happens
	r.value(again, r.read(again).Items[0])
	// After new keys it stays suspended.
	_, e := r.successionOf(policies.Link{Seq: 2, Prev: order.Hash}, 241, r.recovery, nil)
	w.accepted(api.Submission{Envelope: e.Raw})
	r.key = newSigner(241)
	r.openSession()
	if got := r.read(asks[0]).Items[0].Outcome; got != policies.CodeSuspended {
		t.Errorf("after new keys: %s", got)
	}
}

// TestGivenUp: a reader gives up a field. The key is destroyed and nothing is released with it, after a restart too; the owner's history says who did it. Nobody gives up another's grant.
func TestGivenUp(t *testing.T) {
	w := newWorld(t)
	o, r, other := w.owner(), w.reader(), w.reader()
	o.set("name", "n")
	o.set("phone", "p")
	g := o.grant(r, nil, "name", "phone")
	theirs := o.grant(other, nil, "name")
	of := func(by *reader, change func(*succession.Renunciation), g *policies.Grant, fields ...policies.Field) api.Submission {
		d := &succession.Renunciation{Header: policies.NewHeader("renunciation", w.clock.now()), Audience: w.document.Vault, Reader: policies.ReaderID(by.id), Owner: policies.OwnerID(o.id)}
		for _, f := range fields {
			d.Items = append(d.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: policies.AuthorID(o.id)})
		}
		if change != nil {
			change(d)
		}
		e, err := policies.Sign(by.key, d)
		must(t, err)
		return api.Submission{Envelope: e.Raw}
	}
	name, phone := ask{o, g, "name", 0}, ask{o, g, "phone", 0}
	r.value(name, r.read(name, phone).Items[0])
	w.refuses(of(other, nil, g, "name"), policies.CodeNoGrant, "another's grant")
	w.refuses(of(r, func(d *succession.Renunciation) { d.Owner = policies.OwnerID(w.owner().id) }, g, "name"), policies.CodeNoGrant, "as another owner's")
	w.refuses(of(r, nil, g, "mail"), policies.CodeNoGrant, "a field that the grant has not")
	w.refuses(of(r, func(d *succession.Renunciation) { d.Audience[0]++ }, g, "name"), policies.CodeWrongVault, "for another vault")
	if _, err := w.submit(of(other, func(d *succession.Renunciation) { d.Reader = policies.ReaderID(r.id) }, g, "name")); !errors.Is(err, policies.ErrSignature) {
		t.Errorf("signed by another: %v", err)
	}
	if !w.holds(keyID(g.ID, "name", policies.AuthorID(o.id))) {
		t.Fatal("a refused renunciation destroyed a key")
	}
	order := of(r, nil, g, "name")
	receipt := w.accepted(order)
	if w.holds(keyID(g.ID, "name", policies.AuthorID(o.id))) || !w.holds(keyID(g.ID, "phone", policies.AuthorID(o.id))) {
		t.Error("the wrong key is gone, or none")
	}
	for _, database := range []bool{true, false} {
		derives := w.token.count()
		items := r.read(name, phone).Items
		if items[0].Outcome != policies.CodeRevoked || w.token.count() != derives+1 {
			t.Errorf("what was given up: %s, %d uses of keys", items[0].Outcome, w.token.count()-derives)
		}
		r.value(phone, items[1])
		if again := w.accepted(order); again.Evidence.Index != receipt.Evidence.Index { // the same receipt, and nothing happens
			t.Errorf("sent again: entry %d, first %d", again.Evidence.Index, receipt.Evidence.Index)
		}
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
		r.openSession()
		other.openSession()
	}
	w.refuses(of(r, nil, g, "name"), policies.CodeRevoked, "what is over, signed anew")
	them := ask{o, theirs, "name", 0}
	other.value(them, other.read(them).Items[0])
	// A new grant is not ended by the old order.
	anew := ask{o, o.grant(r, nil, "name"), "name", 0}
	w.accepted(order)
	r.value(anew, r.read(anew).Items[0])
	entries := 0
	for _, rec := range w.records() {
		if rec.Kind == evidence.EntryGivenUp {
			entries++
			if rec.Details.Owner != policies.OwnerID(o.id) || rec.Details.Reader != policies.ReaderID(r.id) || len(rec.Details.Items) != 1 || rec.Owner.IsZero() || rec.Reader.IsZero() {
				t.Errorf("the entry: %+v", rec)
			}
		}
	}
	if entries != 1 {
		t.Errorf("%d entries", entries)
	}
	// What ended with the owner's account is refused with the receipt of the closing, to the reader who had it and to nobody else, and not before the keys are destroyed.
	w.token.hook = func(op string) error {
		if op == "destroy" {
			return errors.New("the token does nothing")
		}
		return nil
	}
	closing, _ := o.closureOf(nil)
	w.refuses(closing, policies.CodeTokenFailure, "the token destroys nothing")
	if _, err := w.submit(of(r, nil, g, "phone")); problem.Of(err).Code != policies.CodeClosed || problem.Of(err).Receipt != nil {
		t.Errorf("before the keys are destroyed: %v", err)
	}
	w.token.hook = nil
	w.accepted(closing)
	for _, database := range []bool{true, false} {
		_, err := w.submit(of(r, nil, g, "phone"))
		proves(t, w, err, policies.OwnerID(o.id))
		if _, err := w.submit(of(other, nil, g, "phone")); problem.Of(err).Code != policies.CodeClosed || problem.Of(err).Receipt != nil {
			t.Errorf("to who never had it: %v", err)
		}
		w.restart(database)
	}
}

// TestGivenUpCutShort: the record is there and the key is not destroyed. The same order again, or the next start, finishes it.
func TestGivenUpCutShort(t *testing.T) {
	for _, restart := range []bool{true, false} {
		w := newWorld(t)
		o, r := w.owner(), w.reader()
		o.set("name", "n")
		g := o.grant(r, nil, "name")
		d := &succession.Renunciation{
			Header: policies.NewHeader("renunciation", w.clock.now()), Audience: w.document.Vault, Reader: policies.ReaderID(r.id), Owner: policies.OwnerID(o.id),
			Items: []policies.RevokedItem{{Grant: g.ID, Field: "name", Author: policies.AuthorID(o.id)}},
		}
		e, err := policies.Sign(r.key, d)
		must(t, err)
		key := keyID(g.ID, "name", policies.AuthorID(o.id))
		w.token.hook = func(op string) error {
			if op == "destroy" {
				return errors.New("the token does nothing")
			}
			return nil
		}
		w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeTokenFailure, "the token destroys nothing")
		w.token.hook = nil
		if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeRevoked || !w.holds(key) {
			t.Errorf("half done: %s", got)
		}
		if restart {
			w.restart(false)
		} else {
			w.accepted(api.Submission{Envelope: e.Raw})
		}
		if w.holds(key) {
			t.Errorf("restarted %v: the key is still there", restart)
		}
	}
}
