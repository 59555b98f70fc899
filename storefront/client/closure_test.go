package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// TestCloseAccount: after the receipt nobody reads anything, the token has no key, the storefront knows nobody of that id and registers them never again, and other devices are told.
func TestCloseAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	w.wantRead(r, o, "note", "n")
	two := second(t, w, o)
	w.must(two.Sync(ctx))
	w.must(two.Set(ctx, set("note", "m"))) // the first device does not know of it yet

	w.must(o.CloseAccount(ctx))
	w.must(o.CloseAccount(ctx)) // again, as after a lost answer
	if !o.Closed() || !reopen(m, w).Closed() {
		t.Error("the device does not know that the account is closed")
	}
	if n := w.token.count(); n != 0 {
		t.Errorf("%d keys are left in the token", n)
	}
	if v := w.read(r, o, "note"); v.Err == nil {
		t.Errorf("read %q", v.Bytes)
	}
	if err := two.Sync(ctx); !errors.Is(err, policies.CodeClosed) {
		t.Errorf("the other device: %v", err)
	}
	if err := two.Set(ctx, set("note", "k")); !errors.Is(err, policies.CodeClosed) {
		t.Errorf("the other device publishes: %v", err)
	}
}

// TestCloseAccountPastTheStorefront: a storefront that is silent, or says no, keeps nobody from closing their account; killed at any moment, the device goes on.
func TestCloseAccountPastTheStorefront(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.silent("/closure")
	owners := o.wire.owners
	o.wire.owners = nil
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := o.CloseAccount(short); !errors.Is(err, ErrNotStopped) {
		t.Fatalf("nobody answers: %v", err)
	}
	o = reopen(m, w)
	sent := bytes.Clone(o.state.Closing)
	if sent == nil {
		t.Fatal("what was sent is not kept")
	}
	o.wire.owners = owners
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrUntold) || !o.Closed() {
		t.Fatalf("past the storefront: %v", err)
	}
	w.wantRefusal(r, o, "note", policies.CodeRevoked)
	// When it answers again it is told, deletes what it has, and the device may forget; also if the answer is lost.
	w.hostile(nil)
	o = reopen(m, w)
	w.must(o.CloseAccount(ctx))
	w.must(o.CloseAccount(ctx))
	if !bytes.Equal(sent, o.state.Closing) {
		t.Error("another document was sent the second time")
	}
	if v := w.read(r, o, "note"); v.Err == nil {
		t.Errorf("read %q", v.Bytes)
	}
}

// TestCloseAccountOfTwo: the second device of a closed account may close it too, and then forget its keys; also if the first told the vault alone: the storefront hears of it by the second.
func TestCloseAccountOfTwo(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, away := range []bool{false, true} {
		o, _ := w.owner()
		r, _ := w.reader("R")
		w.must(o.Set(ctx, set("note", "n")))
		w.connect(o, r, "r")
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
		two := second(t, w, o)
		if away {
			w.silent("/closure")
		}
		if err := o.CloseAccount(ctx); err != nil && !(away && errors.Is(err, ErrUntold)) {
			t.Fatal(err)
		}
		if away {
			if err := two.CloseAccount(ctx); !errors.Is(err, ErrUntold) || !two.Closed() {
				t.Fatalf("while the storefront is silent: %v", err)
			}
			w.hostile(nil)
		}
		w.must(two.CloseAccount(ctx))
		if !two.Closed() {
			t.Error("the second device does not know that the account is closed")
		}
		w.wantRefusal(r, o, "note", policies.CodeNoGrant)
		if err := two.Sync(ctx); !errors.Is(err, policies.CodeClosed) {
			t.Errorf("the storefront was told by the first: %t: %v", !away, err)
		}
		w.must(o.CloseAccount(ctx))
	}
	// Nothing is closed, and the storefront says so.
	o, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/closure") {
			problem.Write(rw, policies.CodeClosed)
			return
		}
		next.ServeHTTP(rw, r)
	})
	w.secondRoute(false)
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
		t.Errorf("the storefront says that it is closed, and the vault nothing: %v", err)
	}
	w.secondRoute(true)
	if err := o.CloseAccount(ctx); err != nil || !o.Closed() {
		t.Errorf("the vault has it: %v", err)
	}
}

// TestRevokingInAClosedAccount: what one device waits to revoke when another closes the account has ended with it. The device says so once the vault's receipt
// proves it, by whichever route, and not NOT STOPPED YET for ever; on anybody's word alone it goes on waiting, for a revocation would be forgotten by it.
func TestRevokingInAClosedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, route := range []string{"by the storefront", "past it"} {
		o, _ := w.owner()
		r, _ := w.reader("R")
		w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
		w.connect(o, r, "r")
		w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
		w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{"phone"}, GrantOptions{}))
		two := second(t, w, o)
		w.must(two.Sync(ctx))
		w.must(o.CloseAccount(ctx))
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) { // the storefront's word
			if strings.HasSuffix(r.URL.Path, "/successions") {
				http.Error(rw, "silence", http.StatusBadGateway)
				return
			}
			next.ServeHTTP(rw, r)
		})
		w.reachable(false)
		if err := two.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{}); !errors.Is(err, ErrNotStopped) || !errors.Is(err, ErrSaidClosed) || !two.Unstopped() {
			t.Fatalf("nothing proves it: %v", err)
		}
		if err := two.Finish(ctx); !errors.Is(err, ErrNotStopped) || !two.Unstopped() {
			t.Fatalf("and again: %v", err)
		}
		if route == "past it" {
			w.reachable(true)
		} else {
			w.hostile(nil)
		}
		ended := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, ErrEnded) || !errors.Is(err, policies.CodeClosed) || errors.Is(err, ErrNotStopped) || errors.Is(err, ErrNotRotated) || two.Unstopped() || len(two.state.Tasks) != 0 {
				t.Errorf("%s, %s: %v, %d tasks", route, what, err, len(two.state.Tasks))
			}
		}
		ended("what waited", two.Finish(ctx))
		ended("another one", two.Revoke(ctx, r.ID(), []policies.Field{"tax.id"}, RevokeOptions{}))
		ended("of what nobody has", two.Revoke(ctx, r.ID(), []policies.Field{"iban"}, RevokeOptions{}))
		ended("the end of writing", two.EndWrite(ctx, r.ID(), nil))
		ended("of what nobody may write", two.EndWrite(ctx, r.ID(), []policies.Field{"note"}))
		_, err := two.Stop(ctx, r.ID(), nil)
		ended("a withdrawal", err)
		if n := len(two.state.Mail.Stops); n != 0 {
			t.Errorf("%d withdrawals wait to be told", n)
		}
		w.must(two.CloseAccount(ctx))
		// Who knows it needs nobody to say so.
		w.reachable(false)
		w.hostile(nil)
		if err := o.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{}); !errors.Is(err, ErrEnded) || o.Unstopped() {
			t.Errorf("on the device that closed it: %v", err)
		}
		w.reachable(true)
	}
}

// TestLettersOfAClosedAccount: nobody is told that a letter was sent which a closed account sends no more, an introduction or a request, whichever device closed it. What is for somebody else who closed theirs is dropped as ever.
func TestLettersOfAClosedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(1)
	ben, _ := w.owner()
	link, err := o.InvitePerson("ben", time.Now().Add(time.Hour))
	w.must(err)
	w.must(ben.Accept(ctx, link, "o"))
	w.looks(o, 1)
	two := second(t, w, o)
	w.close(globex)
	for deleted := false; !deleted; { // what the storefront has of it
		_, err := two.listed(ctx, policies.IdentityID(globex.ID()), policies.OwnerID{})
		deleted = errors.Is(err, policies.CodeClosed)
	}
	w.must(two.Introduce(ctx, acme.ID(), globex.ID(), "work"))
	if two.Closed() || len(two.state.Mail.Outbox) > 0 {
		t.Errorf("a contact closed their account: closed %t, %d letters wait", two.Closed(), len(two.state.Mail.Outbox))
	}
	w.must(o.CloseAccount(ctx))
	for name, device := range map[string]*Owner{"the one that closed it": o, "the other one": two} {
		if err := device.Introduce(ctx, globex.ID(), acme.ID(), "work"); !errors.Is(err, ErrEnded) || !device.Closed() {
			t.Errorf("%s: %v, closed %t", name, err, device.Closed())
		}
		if _, err := device.AskPerson(ctx, "ben", delivery()); !errors.Is(err, policies.CodeClosed) {
			t.Errorf("%s asks: %v", name, err)
		}
	}
}

// TestSaidToBeClosed: a storefront and whoever answers in the vault's place say together that an open account is closed, also with receipts, of another
// account's closing, of something else of this one, or of a log of their own. Nothing is given up, and when they are honest again all of it is done.
func TestSaidToBeClosed(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	other, _ := w.owner()
	w.must(other.CloseAccount(ctx))
	submit := func(raw []byte) *evidence.Receipt {
		receipt, err := w.vault.Submit(ctx, vaultapi.Submission{Envelope: raw})
		w.must(err)
		return receipt
	}
	others := submit(other.state.Closing)
	renamed := *others
	renamed.Document = policies.Hash(o.id)
	// A log of their own, in which this account is closed.
	opening, commitment := evidence.Commit(&evidence.Details{Owner: o.ID(), Document: policies.Hash{7}, Seq: 9})
	entry := evidence.Entry{Kind: evidence.EntryClosure, Owner: policies.NewPseudonym(), Outcome: policies.CodeAccepted, Commitment: commitment}
	leaf := append(make([]byte, 8), entry.Bytes()...)
	text := evidence.Checkpoint{Size: 1, Root: policies.Hash(tlog.RecordHash(leaf))}.Text(w.doc.LogKey.Name)
	_, forger, _ := ed25519.GenerateKey(nil)
	forged := func(key ed25519.PrivateKey) *evidence.Receipt {
		public, err := note.NewEd25519VerifierKey(w.doc.LogKey.Name, key.Public().(ed25519.PublicKey))
		w.must(err)
		signer, err := note.NewSigner("PRIVATE+KEY+" + strings.Join(strings.Split(public, "+")[:2], "+") + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
		w.must(err)
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		w.must(err)
		return &evidence.Receipt{
			Type: "receipt", Suite: policies.Suite, Vault: w.doc.Vault, Document: policies.Hash{7},
			Evidence: evidence.Evidence{Leaf: leaf, Opening: opening}, Checkpoint: string(signed),
		}
	}
	lies := map[string]*evidence.Receipt{
		"nothing": nil, "another account's closing": others, "the same for another document": &renamed, "something else of this account": submit(o.state.Manifest.Raw),
		"a log of their own": forged(forger), "a fork, which the token signed": forged(w.logKey),
	}
	for name, receipt := range lies {
		w.closedSay(&problem.Problem{Code: policies.CodeClosed, Receipt: receipt})
		for range 2 {
			err := o.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{})
			if !errors.Is(err, ErrNotStopped) || !errors.Is(err, ErrSaidClosed) || errors.Is(err, ErrEnded) || !o.Unstopped() {
				t.Errorf("%s: %v", name, err)
			}
			o = reopen(m, w)
		}
		if err := o.Set(ctx, set("tax.id", "t2")); !errors.Is(err, ErrSaidClosed) {
			t.Errorf("%s, a value: %v", name, err)
		}
		if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
			t.Errorf("%s, closing it: %v", name, err)
		}
		w.wantRead(r, o, "note", "n")
	}
	w.closedSay(nil)
	w.must(o.Finish(ctx))
	w.wantRefusal(r, o, "note", policies.CodeRevoked)
	if got, err := o.Get(ctx, "tax.id"); err != nil || string(got) != "t2" || o.Unstopped() || o.Closed() {
		t.Errorf("%q, %v, stopped %v", got, err, !o.Unstopped())
	}
}

// TestCloseAccountWhoseAnswerIsLost: without a second route too, a device that closed the account and did not hear of it gets the vault's receipt by the
// storefront, although nobody can log in to the account any more; so does one whose closing came second, and one that has not tried to close it.
func TestCloseAccountWhoseAnswerIsLost(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	two, three := second(t, w, o), second(t, w, o)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/closure") {
			next.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	})
	o.wire.owners, two.wire.owners, three.wire.owners = nil, nil, nil
	if err := o.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || o.Closed() {
		t.Fatalf("its answer is lost: %v", err)
	}
	w.hostile(nil)
	// A storefront that only says so proves nothing.
	w.silent("/successions")
	o = reopen(m, w)
	o.wire.owners = nil
	for _, one := range []*Owner{o, two} {
		if err := one.CloseAccount(ctx); !errors.Is(err, ErrNotStopped) || !errors.Is(err, ErrSaidClosed) || one.Closed() {
			t.Errorf("the storefront's word: %v", err)
		}
	}
	w.hostile(nil)
	if err := o.CloseAccount(ctx); err != nil || !o.Closed() || !reopen(m, w).Closed() {
		t.Errorf("it is closed, and the vault's receipt is there: %v", err)
	}
	if err := two.CloseAccount(ctx); err != nil || !two.Closed() {
		t.Errorf("the other device: %v", err)
	}
	if err := three.Revoke(ctx, r.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrEnded) || !three.Closed() {
		t.Errorf("the third: %v", err)
	}
	w.must(three.CloseAccount(ctx))
}

// TestKilledWhileClosing: a device that is killed before it has stored that the account is closed, by its own closing or by another's, learns it again; by one
// route as by two.
func TestKilledWhileClosing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	var backup []byte
	_, err := o.Backup(false, keep(&backup))
	w.must(err)
	m2 := new(memory)
	two, err := RestoreOwner(m2, backup, Options{})
	w.must(err)
	w.must(two.Sync(ctx))
	m.limit = m.saves + 1 // the closing that is sent, and not that it was accepted
	if err := o.CloseAccount(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("killed: %v", err)
	}
	m.limit = 0
	o = reopen(m, w)
	if o.Closed() {
		t.Fatal("nothing is tested")
	}
	o.wire.owners, two.wire.owners = nil, nil
	w.must(o.CloseAccount(ctx))
	m2.limit = m2.saves + 1 // the wish
	if err := two.Revoke(ctx, r.ID(), nil, RevokeOptions{}); !errors.Is(err, errCrash) {
		t.Fatalf("killed: %v", err)
	}
	m2.limit = 0
	two = reopen(m2, w)
	two.wire.owners = nil
	if two.Closed() || !two.Unstopped() {
		t.Fatal("nothing is tested")
	}
	if err := two.Finish(ctx); !errors.Is(err, ErrEnded) || two.Unstopped() {
		t.Errorf("again: %v", err)
	}
	if two = reopen(m2, w); !two.Closed() || two.Unstopped() {
		t.Error("it is not stored")
	}
}

// TestClosedByTwoAtOnce: of two devices that close the account at the same time both are told that it is closed, with one entry in the log.
func TestClosedByTwoAtOnce(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, routes := range []int{1, 2} {
		one, _ := w.owner()
		r, _ := w.reader("R")
		w.must(one.Set(ctx, set("note", "n")))
		w.connect(one, r, "r")
		w.must(one.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
		devices := []*Owner{one, second(t, w, one), second(t, w, one)}
		errs := make([]error, len(devices))
		var all sync.WaitGroup
		for i, d := range devices {
			if routes == 1 {
				d.wire.owners = nil
			}
			all.Go(func() { errs[i] = d.CloseAccount(ctx) })
		}
		all.Wait()
		for i, d := range devices {
			if errs[i] != nil && !errors.Is(errs[i], ErrUntold) || !d.Closed() {
				t.Errorf("%d routes, device %d: %v", routes, i, errs[i])
			}
			w.must(d.CloseAccount(ctx))
		}
		history, err := w.vault.History(one.ID(), 0, 100)
		w.must(err)
		closings := 0
		for i := range history.Entries {
			if _, entry, err := evidence.ParseLogLeaf(history.Entries[i].Leaf); err == nil && entry.Kind == evidence.EntryClosure {
				closings++
			}
		}
		if closings != 1 || w.token.count() != 0 {
			t.Errorf("%d routes: %d closings, %d keys are left", routes, closings, w.token.count())
		}
	}
}

// close closes a reader's account.
func (w *world) close(r *Reader) {
	w.t.Helper()
	e, err := policies.Sign(r.signing, &policies.Closure{
		Header: policies.NewHeader("closure", r.now()), Audience: w.doc.Vault, Owner: policies.OwnerID(r.id), Link: policies.Link{Seq: 1, Prev: policies.Hash(r.id)},
	})
	w.must(err)
	w.must(r.wire.call(w.t.Context(), request{method: "POST", path: path(api.PathClosure, r.id.String()), raw: e.Raw, login: true, out: new(evidence.Receipt)}))
}

// TestGivingToWhoClosed: what is to be given to a contact whose account is closed is given up, the person is told of whom, and nothing else waits for it:
// neither what comes behind it, nor a rotation that would have carried over what the contact had.
func TestGivingToWhoClosed(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t"), set("iban", "i")))
	readers := map[string]*Reader{}
	for _, name := range []string{"gone", "ended", "stays"} {
		readers[name], _ = w.reader(name)
		w.connect(o, readers[name], name)
		w.must(o.Grant(ctx, readers[name].ID(), []policies.Field{"note"}, GrantOptions{}))
	}
	gone, ended, stays := readers["gone"], readers["ended"], readers["stays"]
	w.must(o.GrantWrite(ctx, gone.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.close(gone)
	told := func(what string, err error) {
		t.Helper()
		right := errors.Is(err, ErrContactClosed) && errors.Is(err, policies.CodePartyClosed) && strings.HasPrefix(err.Error(), "gone: ")
		if !right || errors.Is(err, policies.CodeClosed) || errors.Is(err, ErrNotRotated) || len(o.state.Tasks) != 0 {
			t.Errorf("%s: %v, %d tasks", what, err, len(o.state.Tasks))
		}
	}
	told("a grant", o.Grant(ctx, gone.ID(), []policies.Field{"tax.id"}, GrantOptions{}))
	told("writing", o.GrantWrite(ctx, gone.ID(), []policies.Field{"iban"}, GrantOptions{}))
	// With others behind it.
	o = reopen(m, w)
	w.silent("/")
	w.reachable(false)
	for _, err := range []error{
		o.Grant(ctx, gone.ID(), []policies.Field{"tax.id"}, GrantOptions{}), o.GrantWrite(ctx, gone.ID(), []policies.Field{"iban"}, GrantOptions{}),
		o.Grant(ctx, stays.ID(), []policies.Field{"tax.id"}, GrantOptions{}), o.Set(ctx, set("iban", "j")),
	} {
		if err == nil {
			t.Fatal("nothing is tested")
		}
	}
	w.hostile(nil)
	w.reachable(true)
	told("with others behind it", o.Sync(ctx))
	w.must(o.Sync(ctx))
	w.wantRead(stays, o, "tax.id", "t")
	// Carried over to those who are there.
	o = reopen(m, w)
	before := o.fieldEpoch("note")
	w.must(o.Revoke(ctx, ended.ID(), nil, RevokeOptions{}))
	if o.fieldEpoch("note") == before || len(o.state.Tasks) != 0 {
		t.Errorf("it is not rotated: epoch %d, %d tasks", o.fieldEpoch("note"), len(o.state.Tasks))
	}
	w.must(o.Set(ctx, set("note", "m")))
	w.wantRead(stays, o, "note", "m")
	w.wantRefusal(ended, o, "note", policies.CodeRevoked)
	o = reopen(m, w)
	w.must(o.Rotate(ctx, "note", "tax.id"))
	w.must(o.Sync(ctx))
	w.wantRead(stays, o, "note", "m")
	w.wantRead(stays, o, "tax.id", "t")
}

// TestContactSaidToBeClosed: that a contact is gone, a storefront alone is not believed where the vault can be asked.
func TestContactSaidToBeClosed(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(1)
	lies := func() {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == "POST" && strings.HasSuffix(r.URL.Path, "/grants") {
				problem.Write(rw, policies.CodePartyClosed)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	lies()
	if err := o.Rotate(ctx, "own/f0"); errors.Is(err, ErrContactClosed) { // that the storefront does not take them is told
		t.Errorf("the vault is not asked: %v", err)
	}
	w.hostile(nil)
	w.must(o.Sync(ctx))
	w.wantRead(acme, o, "own/f0", "value 0")
	w.wantRead(globex, o, "own/f0", "value 0")
	lies()
	if err := o.Grant(ctx, globex.ID(), []policies.Field{"own/f0"}, GrantOptions{Purpose: "another"}); errors.Is(err, ErrContactClosed) {
		t.Errorf("what is wished: %v", err)
	}
	w.hostile(nil)
	w.must(o.Sync(ctx))
}

// TestStoppingBesideAClosedAccount: of two contacts who are let write or read a field one closed their account. The other is stopped and asked to delete all the same.
func TestStoppingBesideAClosedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	acme, _ := w.reader("Acme")
	gone, _ := w.reader("Gone")
	w.connect(o, acme, "acme")
	w.connect(o, gone, "gone")
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, gone.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.close(gone)
	o = reopen(m, w)
	stopped, err := o.Stop(ctx, acme.ID(), nil)
	w.must(err)
	if len(stopped.Fields) != 1 {
		t.Errorf("stopped: %+v", stopped)
	}
	w.wantRefusal(acme, o, "note", policies.CodeRevoked)
}

// TestAccountOfAReplacedAndClosedOne: what the key server has is deleted too after another device closed an account whose root was replaced, of which the storefront has no receipt any more.
func TestAccountOfAReplacedAndClosedOne(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	server, b := w.keyServer()
	o, _ := w.owner()
	var backup []byte
	w.must(o.Replace(ctx, stolen(), keep(&backup)))
	_, _, err := o.NewKit(ctx, server.URL, ClaimNothing, false)
	w.must(err)
	two, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(two.Sync(ctx))
	w.must(two.CloseAccount(ctx))
	for begin := time.Now(); !errors.Is(o.Sync(ctx), policies.CodeClosed) && time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
	}
	w.must(o.DropAccount(ctx))
	if b.newest != nil || o.AccountServer() != "" {
		t.Error("it is still there")
	}
}
