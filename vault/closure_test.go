package vault

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/keylog/tiles"
)

func (o *owner) closureOf(change func(*policies.Closure)) (api.Submission, *envelope.Envelope) {
	c := &policies.Closure{Header: policies.NewHeader("closure", o.w.clock.now()), Audience: o.w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link()}
	if change != nil {
		change(c)
	}
	e, err := policies.Sign[policies.Closure](o.key, c)
	must(o.w.t, err)
	return api.Submission{Envelope: e.Raw}, e
}

// TestClosure: an account that is closed is over at once, in both custodies: nothing is released under its grants, its keys are gone, nothing of it is accepted again, also after
// restarts with the database and without. Two days later what lay beside its entries is gone from every file, and everybody else goes on.
func TestClosure(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, other, r := w.owner(), w.owner(), w.reader()
		o.set("name", "n")
		other.set("name", "m")
		granting, g, hash := o.grantOf(r, nil, "name")
		w.accepted(granting)
		o.seq, o.prev = o.seq+1, hash
		kept := other.grant(r, nil, "name")
		r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
		both := r.read(ask{o, g, "name", 0}, ask{other, kept, "name", 0})
		r.value(ask{other, kept, "name", 0}, both.Items[1])
		manifest, _, _ := o.manifestOf(nil) // the next one, which will come too late
		grant, _, _ := o.grantOf(r, nil, "name")

		for name, c := range map[string]struct {
			change func(*policies.Closure)
			want   policies.Code
		}{
			"another vault's": {func(c *policies.Closure) { c.Audience[0] ^= 1 }, policies.CodeWrongVault},
			"out of order":    {func(c *policies.Closure) { c.Seq++ }, policies.CodeChain},
			"of another":      {func(c *policies.Closure) { c.Owner = policies.OwnerID(other.id) }, policies.CodeSignature},
		} {
			s, _ := o.closureOf(c.change)
			if _, err := w.submit(s); problem.Of(err).Code != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		before := w.held()
		s, e := o.closureOf(nil)
		first := w.accepted(s)
		if again := w.accepted(s); again.Evidence.Index != first.Evidence.Index {
			t.Errorf("sent again it is entry %d, and was %d", again.Evidence.Index, first.Evidence.Index)
		}
		if w.custody != policies.CustodySealed && w.held() != before-1 {
			t.Errorf("%d keys are in the token, and were %d", w.held(), before)
		}
		over := func() {
			t.Helper()
			if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeRevoked && got != policies.CodeNoGrant {
				t.Errorf("a read: %s", got)
			}
			r.value(ask{other, kept, "name", 0}, r.read(ask{other, kept, "name", 0}).Items[0])
			next, _ := o.closureOf(func(c *policies.Closure) { c.Seq, c.Prev = o.seq+2, e.Hash })
			for name, s := range map[string]api.Submission{"a manifest": manifest, "a grant": {Envelope: grant.Envelope}, "a second closure": next} {
				if _, err := w.submit(s); !errors.Is(err, policies.CodeClosed) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if again := w.accepted(s); again.Evidence.Index != first.Evidence.Index {
				t.Errorf("sent again it is entry %d, and was %d", again.Evidence.Index, first.Evidence.Index)
			}
		}
		over()
		for _, database := range []bool{true, false} {
			w.restart(database)
			r.openSession()
			over()
		}

		folder := t.TempDir()
		publish := func() {
			t.Helper()
			p, err := tiles.New(tiles.Config{
				Dir: folder, Log: w.log, Document: w.document, Envelope: w.envelope.Raw, Host: hostKey("vault.test/log/host"), Erased: w.vault.Erased, ErasedAccounts: w.vault.ErasedAccounts,
			})
			must(t, err)
			must(t, p.Publish(t.Context()))
		}
		publish()
		if len(holding(t, filepath.Join(w.dir, "log"), granting.Envelope)) == 0 || len(holding(t, folder, granting.Envelope)) == 0 || len(w.vault.ErasedAccounts(0)) != 0 {
			t.Fatal("nothing is tested")
		}
		w.clock.move(leastKeep + time.Hour)
		w.log.Roll()
		other.set("name", "k") // what comes now is in a new segment
		w.restart(true)
		r.openSession()
		until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
		publish()
		over()
		gone := func(when string) {
			t.Helper()
			for _, r := range w.records() {
				about := r.Owner == o.pseudonym(first) && r.Kind != evidence.EntryClosure && r.Kind != evidence.EntryIdentity && r.Index < first.Evidence.Index
				if erased := len(r.Opening.Details) == 0; erased != about {
					t.Errorf("%s: entry %d, %s: erased %v, of the account %v", when, r.Index, r.Kind, erased, about)
				}
			}
			for _, dir := range []string{filepath.Join(w.dir, "log"), folder} {
				if names := holding(t, dir, granting.Envelope); names != nil {
					t.Errorf("%s: the grant is still in %q", when, names)
				}
			}
		}
		gone("at once")
		for _, database := range []bool{true, false} {
			w.restart(database)
			r.openSession()
			until(t, "known to be erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
			over()
			gone("after a restart")
		}
	})
}

// TestClosedIsProven: what is refused because its account is closed is refused with the vault's receipt of the closing, if one of the account's keys signed it:
// after restarts, when what lay beside its entries is gone, and not before the keys are destroyed. Nobody else gets it.
func TestClosedIsProven(t *testing.T) {
	w := newWorld(t)
	o, other, r := w.owner(), w.owner(), w.reader()
	var identity api.Submission
	o.party, identity = w.identity()
	w.accepted(identity)
	o.prev = policies.Hash(o.id)
	old, _, _ := o.manifestOf(nil)
	_, e := o.successionOf(o.link(), 231, o.recovery, nil)
	o.take(e)
	o.key = newSigner(231)
	o.set("name", "n")
	granting, _, hash := o.grantOf(r, nil, "name")
	w.accepted(granting)
	o.seq, o.prev = o.seq+1, hash
	manifest, _, _ := o.manifestOf(nil)
	s, closing := o.closureOf(nil)
	second, _ := o.closureOf(func(c *policies.Closure) { c.Time++ })
	proof := func(s api.Submission) *evidence.Receipt {
		t.Helper()
		_, err := w.submit(s)
		if !errors.Is(err, policies.CodeClosed) {
			t.Fatalf("refused with %v", err)
		}
		return problem.Of(err).Receipt
	}
	w.token.hook = func(op string) error {
		if op == "destroy" {
			return errors.New("device error")
		}
		return nil
	}
	w.refuses(s, policies.CodeTokenFailure, "a closing whose keys stay")
	if r := proof(manifest); r != nil {
		t.Error("it is proven while the keys are in the token")
	}
	w.token.hook = nil
	first := w.accepted(s)
	check := func(when string) {
		t.Helper()
		for name, s := range map[string]api.Submission{"a manifest": manifest, "a second closing": second, "by the key before": old} {
			r := proof(s)
			if r == nil {
				t.Errorf("%s, %s: nothing proves it", when, name)
				continue
			}
			_, entry, d, err := r.Verify(w.document, closing.Hash)
			if err != nil || entry.Kind != evidence.EntryClosure || d.Owner != policies.OwnerID(o.id) || r.Evidence.Index != first.Evidence.Index {
				t.Errorf("%s, %s: entry %d, %s, of %s: %v", when, name, r.Evidence.Index, entry.Kind, d.Owner, err)
			}
		}
		forged, err := policies.Sign(other.key, &policies.Closure{Header: policies.NewHeader("closure", w.clock.now()), Audience: w.document.Vault, Owner: policies.OwnerID(o.id), Link: o.link()})
		must(t, err)
		for name, s := range map[string]api.Submission{"by a stranger": {Envelope: forged.Raw}, "the identity": identity} {
			if proof(s) != nil {
				t.Errorf("%s, %s: the receipt is given away", when, name)
			}
		}
	}
	check("at once")
	w.clock.move(leastKeep + time.Hour)
	w.log.Roll()
	other.set("name", "k")
	for _, database := range []bool{true, false} {
		w.restart(database)
		until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
		check("later")
	}
}

// pseudonym is the one under which a receipt's entry is.
func (o *owner) pseudonym(r *evidence.Receipt) policies.Pseudonym {
	_, entry, err := evidence.ParseLogLeaf(r.Evidence.Leaf)
	must(o.w.t, err)
	return entry.Owner
}

// TestTakenAway: a vault whose log lacks what its state rests on does not start, unless the account of its owner was closed.
func TestTakenAway(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	var pseudonym policies.Pseudonym
	w.vault.ledger.Read(func(s *ledger.State) { pseudonym = s.Pseudonym(o.id) })
	w.log.Roll()
	o.set("other", "x")
	must(t, w.log.Erase(t.Context(), 0, w.log.Checkpoint().Size-1, func(entry []byte) bool { return ledger.Closable(entry, pseudonym) }))
	w.kill()
	var err error
	w.log, err = keylog.Open(t.Context(), w.logConfig())
	must(t, err)
	defer w.log.Close()
	cfg := w.config()
	cfg.Dir = "" // all of the log is replayed
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no closure of that account") {
		t.Fatalf("opening: %v", err)
	}
}

// TestClosureCutShort: a vault that dies while it erases goes on with the next start, whichever segments it had done.
func TestClosureCutShort(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	for i := range 3 { // a segment each
		o.set("name", string(rune('a'+i)))
		w.log.Roll()
	}
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	s, _ := o.closureOf(nil)
	first := w.accepted(s)
	pseudonym := o.pseudonym(first)
	w.log.Roll()
	other := w.owner()
	other.set("name", "m")
	// The first segment only.
	must(t, w.log.Erase(t.Context(), 0, 2, func(entry []byte) bool { return ledger.Closable(entry, pseudonym) }))
	w.clock.move(leastKeep + time.Hour)
	for _, database := range []bool{false, true} {
		w.restart(database)
		until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
		for _, r := range w.records() {
			if r.Owner == pseudonym && r.Kind != evidence.EntryIdentity && r.Index < first.Evidence.Index && len(r.Opening.Details) > 0 {
				t.Errorf("entry %d, %s, is not erased", r.Index, r.Kind)
			}
		}
		if _, err := w.vault.Submit(context.Background(), s); err != nil {
			t.Errorf("sent again: %v", err)
		}
	}
}

// TestSuspendedThenClosed: a business that suspended its grants, took new keys and closed its account later leaves a log from which the vault starts, with its database and without.
func TestSuspendedThenClosed(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	o.set("name", "n")
	e, err := policies.Sign(o.key, &succession.Suspension{
		Header: policies.NewHeader("suspension", w.clock.now()), Audience: w.document.Vault, Reader: policies.ReaderID(o.id), Link: o.link(),
	})
	must(t, err)
	w.accepted(api.Submission{Envelope: e.Raw})
	o.seq, o.prev = o.seq+1, policies.Hash(e.Hash)
	_, e = o.successionOf(o.link(), 231, o.recovery, nil)
	o.take(e)
	o.key, o.recovery = newSigner(231), recoveryKey(231)
	s, closure := o.closureOf(nil)
	first := w.accepted(s)
	_, late := o.successionOf(policies.Link{Seq: o.seq + 2, Prev: policies.Hash(closure.Hash)}, 232, o.recovery, nil)
	w.clock.move(leastKeep + time.Hour)
	w.log.Roll()
	other := w.owner()
	other.set("name", "m")
	w.restart(true)
	until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
	for _, database := range []bool{false, true} {
		w.restart(database)
		if _, err := w.submit(s); err != nil {
			t.Errorf("sent again: %v", err)
		}
		w.refuses(api.Submission{Envelope: late.Raw}, policies.CodeClosed, "new keys")
		for _, r := range w.records() { // it would stay when all of theirs before it go
			if r.Owner == o.pseudonym(first) && r.Index > first.Evidence.Index && r.Kind != evidence.EntryDestroyed {
				t.Errorf("entry %d, %s, is the owner's, after they closed the account", r.Index, r.Kind)
			}
		}
	}
}

// TestRetentionThenClosed: an account whose newest entries lost their bodies by retention before it was closed is erased all the same.
func TestRetentionThenClosed(t *testing.T) {
	w := newWorld(t)
	w.keep = leastKeep
	w.restart(true)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	w.clock.move(leastKeep + time.Hour)
	w.restart(true)
	until(t, "retention", func() bool { return w.vault.Erased() > 3 })
	s, _ := o.closureOf(nil)
	first := w.accepted(s)
	w.clock.move(leastKeep + time.Hour)
	w.log.Roll()
	other := w.owner()
	other.set("name", "k")
	w.restart(true)
	until(t, "erased", func() bool { return len(w.vault.ErasedAccounts(0)) == 1 })
	for _, one := range w.records() {
		if one.Owner == o.pseudonym(first) && one.Index < first.Evidence.Index && ledger.Closable(one.Leaf[8:], one.Owner) && len(one.Opening.Details) > 0 {
			t.Errorf("entry %d, %s, is not erased", one.Index, one.Kind)
		}
	}
}

// TestClosedReader: who closed their account reads nothing more, in a session that was open either.
func TestClosedReader(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	r.value(ask{o, g, "name", 0}, r.read(ask{o, g, "name", 0}).Items[0])
	e, err := policies.Sign(r.key, &policies.Closure{
		Header: policies.NewHeader("closure", w.clock.now()), Audience: w.document.Vault, Owner: policies.OwnerID(r.id), Link: policies.Link{Seq: 1, Prev: policies.Hash(r.id)},
	})
	must(t, err)
	w.accepted(api.Submission{Envelope: e.Raw})
	for _, database := range []bool{true, false} {
		call, _ := r.callOf(nil, ask{o, g, "name", 0})
		if got := w.vault.Reencrypt(t.Context(), []api.Call{call})[0].Code; got != policies.CodeSession {
			t.Errorf("the session goes on: %q", got)
		}
		w.restart(database)
	}
}

// TestNothingAfterClosure: what was counted or under way when an account was closed leaves no entry that names it afterwards, since the closure erases only what was before it.
func TestNothingAfterClosure(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	o.set("name", "n")
	_, err := w.vault.History(policies.OwnerID(o.id), 0, 10)
	must(t, err)
	s, e := o.closureOf(nil)
	late, err := open(w.vault, e, func(c *policies.Closure) policies.IdentityID { return policies.IdentityID(c.Owner) })
	must(t, err)
	late.owner = policies.OwnerID(o.id)
	first := w.accepted(s)
	w.vault.quotas.count(allowance{o.id, refusedDocuments}, w.clock.now(), o.pseudonym(first), policies.Pseudonym{}, map[policies.Code]uint64{policies.CodeKeyReplaced: 3})
	_, _, err = w.vault.record(t.Context(), func(s *ledger.State, now time.Time) []ledger.Record {
		return refusedDocument(w.vault, s, now, late, policies.CodeChain)
	})
	must(t, err)
	w.vault.recordCounts(true)
	w.vault.recordAccesses(true)
	w.vault.recordRefusals()
	counted := uint64(0)
	for _, r := range w.records() {
		if r.Kind == evidence.EntryRefusals {
			counted += r.Details.Count
		}
		if r.Index > first.Evidence.Index && r.Kind != evidence.EntryDestroyed && (r.Owner == o.pseudonym(first) || r.Reader == o.pseudonym(first) || r.Details.Identity == o.id) {
			t.Errorf("entry %d, %s, names who closed the account", r.Index, r.Kind)
		}
	}
	if counted != 4 {
		t.Errorf("%d refusals are counted, want 4", counted)
	}
}

// TestGivingToWhoClosed: nothing is given to a reader or writer whose account is closed, which the refusal tells from the closing of the owner's own account.
func TestGivingToWhoClosed(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	e, err := policies.Sign(r.key, &policies.Closure{
		Header: policies.NewHeader("closure", w.clock.now()), Audience: w.document.Vault, Owner: policies.OwnerID(r.id), Link: policies.Link{Seq: 1, Prev: policies.Hash(r.id)},
	})
	must(t, err)
	w.accepted(api.Submission{Envelope: e.Raw})
	grant, _, _ := o.grantOf(r, nil, "name")
	write, _, _ := o.writeGrantOf(r.party, nil, "name")
	for name, s := range map[string]api.Submission{"a grant": grant, "a write grant": write} {
		if _, err := w.submit(s); problem.Of(err).Code != policies.CodePartyClosed || problem.Of(err).Receipt != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.set("name", "m") // the chain goes on
}

// proves demands of a refusal that it carries the receipt of an account's closing.
func proves(t *testing.T, w *world, err error, account policies.OwnerID) {
	t.Helper()
	r := problem.Of(err).Receipt
	if problem.Of(err).Code != policies.CodeClosed || r == nil {
		t.Errorf("nothing proves it: %v", err)
		return
	}
	if _, entry, d, err := r.Verify(w.document, r.Document); err != nil || entry.Kind != evidence.EntryClosure || d.Owner != account {
		t.Errorf("the receipt is of a %s of %s: %v", entry.Kind, d.Owner, err)
	}
}

// TestVerifiedBeforeClosing: a document whose signature was verified before its account was closed, and that is decided afterwards, is refused with the receipt of the closing, whatever else is wrong with it.
func TestVerifiedBeforeClosing(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	o.set("name", "n")
	next, _, _ := o.manifestOf(nil)
	e, err := envelope.Parse(next.Envelope)
	must(t, err)
	d, err := open(w.vault, e, func(m *policies.Manifest) policies.IdentityID { return policies.IdentityID(m.Author) })
	must(t, err)
	d.owner = policies.OwnerID(o.id)
	s, _ := o.closureOf(nil)
	w.accepted(s)
	for name, check := range map[string]func(*ledger.State, time.Time) error{
		"the next of the chain": func(s *ledger.State, _ time.Time) error { return follows(s, d.owner, d.doc.Link) },
		"for another vault":     func(*ledger.State, time.Time) error { return policies.CodeWrongVault },
		"right":                 func(*ledger.State, time.Time) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := accept(t.Context(), w.vault, d, check, func() ledger.Record { return ledger.Record{} })
			proves(t, w, err, d.owner)
		})
	}
}

// TestSuccessionVerifiedBeforeClosing: a succession is refused without the receipt of the closing, also where it was verified before that.
func TestSuccessionVerifiedBeforeClosing(t *testing.T) {
	w := newWorld(t)
	o := w.owner()
	doc, e := o.successionOf(o.link(), 201, o.recovery, nil)
	d := &signed[succession.Document]{Envelope: e, doc: doc, owner: policies.OwnerID(o.id)}
	w.vault.ledger.Read(func(s *ledger.State) { d.signer = s.Identity(o.id) })
	closing, _ := o.closureOf(nil)
	w.accepted(closing)
	_, _, err := accept(t.Context(), w.vault, d, func(*ledger.State, time.Time) error { return nil }, func() ledger.Record { return ledger.Record{} })
	if p := problem.Of(err); p.Code != policies.CodeClosed || p.Receipt != nil {
		t.Errorf("decided afterwards: %v, with a receipt %t", err, p.Receipt != nil)
	}
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeClosed, "sent afterwards")
}

// TestUnderWayWhenClosed: a request that was admitted, and a session that was verified, before its reader closed the account, and decided afterwards, are refused and leave no entry that names the reader.
func TestUnderWayWhenClosed(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	g := o.grant(r, nil, "name")
	call, _ := r.callOf(nil, ask{o, g, "name", 0})
	reading, code := w.vault.admit(&call)
	if code != "" {
		t.Fatal(code)
	}
	raw, _, _, _ := r.sessionOf(nil)
	e, err := envelope.Parse(raw.Envelope)
	must(t, err)
	session, err := open(w.vault, e, func(s *policies.Session) policies.IdentityID { return policies.IdentityID(s.Reader) })
	must(t, err)
	closing, err := policies.Sign(r.key, &policies.Closure{
		Header: policies.NewHeader("closure", w.clock.now()), Audience: w.document.Vault, Owner: policies.OwnerID(r.id), Link: policies.Link{Seq: 1, Prev: policies.Hash(r.id)},
	})
	must(t, err)
	first := w.accepted(api.Submission{Envelope: closing.Raw})
	_, _, err = w.vault.record(t.Context(), func(s *ledger.State, now time.Time) []ledger.Record { return w.vault.decide(s, now, reading, nil) })
	must(t, err)
	if reading.refusal != policies.CodeSession {
		t.Errorf("the request is refused with %q", reading.refusal)
	}
	_, _, err = accept(t.Context(), w.vault, session, func(*ledger.State, time.Time) error { return nil }, func() ledger.Record {
		return ledger.Record{
			Kind: evidence.EntrySession, Reader: session.signer.Pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw, Document: session.doc,
			Details: evidence.Details{Reader: session.doc.Reader, Document: e.Hash, Session: e.Hash, Expires: session.doc.Expires},
		}
	})
	if !errors.Is(err, policies.CodeClosed) {
		t.Errorf("a session is opened after all: %v", err)
	}
	proves(t, w, err, policies.OwnerID(r.id))
	w.vault.recordRefusals()
	w.vault.recordCounts(true)
	counted := uint64(0)
	for _, one := range w.records() {
		if one.Kind == evidence.EntryRefusals {
			counted += one.Details.Count
		}
		if one.Index > first.Evidence.Index && one.Kind != evidence.EntryDestroyed && (one.Reader == session.signer.Pseudonym || one.Details.Reader == policies.ReaderID(r.id)) {
			t.Errorf("entry %d, %s, names who closed the account", one.Index, one.Kind)
		}
	}
	if counted != 2 {
		t.Errorf("%d refusals are counted, want 2", counted)
	}
	w.restart(false)
}
