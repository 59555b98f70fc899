package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// onResult lets a hostile storefront change the result of reads.
func (w *world) onResult(change func(*api.ReadResult)) {
	w.rewrite(api.PathReads, func(body []byte) []byte {
		r := new(api.ReadResult)
		w.must(envelope.Decode(body, r))
		change(r)
		b, err := json.Marshal(r)
		w.must(err)
		return b
	})
}

func TestHostileReads(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	victim, _ := w.owner()
	r, store := w.reader("R")
	w.must(o.Set(ctx, set("note", "note-1"), set("name.full", "name"), set("tax.id", "tax")))
	w.must(victim.Set(ctx, set("note", "other's note")))
	w.connect(o, r, "r")
	w.connect(victim, r, "v")
	both := []policies.Field{"note", "name.full", "tax.id"}
	w.must(o.Grant(ctx, r.ID(), both, GrantOptions{}))
	w.must(victim.Grant(ctx, r.ID(), both[:1], GrantOptions{}))
	w.must(r.Flush())
	// Each case begins with a reader that has nothing in memory, so that nothing is checked against a cache alone.
	items := []Item{{Owner: o.ID(), Field: "note"}, {Owner: o.ID(), Field: "name.full"}, {Owner: victim.ID(), Field: "note"}}
	fresh := func() *Reader {
		r, err := OpenReader(&memory{state: bytes.Clone(store.state)}, Options{})
		w.must(err)
		return r
	}
	var oldLeaf []byte
	var oldResult *api.ReadResult
	w.onResult(func(res *api.ReadResult) { oldLeaf, oldResult = res.Items[0].Leaf, res })
	if v, err := fresh().Read(ctx, items...); err != nil || v[0].Err != nil || v[1].Err != nil || v[2].Err != nil {
		t.Fatalf("honest: %+v, %v", v, err)
	}
	w.hostile(nil)
	w.must(o.Set(ctx, set("note", "note-2")))

	other := jsontext.Value{}
	for name, c := range map[string]struct {
		change func(*api.ReadResult)
		bad    []int // items that must fail; nil: the whole read
	}{
		"leaves swapped":           {func(r *api.ReadResult) { r.Items[0].Leaf, r.Items[1].Leaf = r.Items[1].Leaf, r.Items[0].Leaf }, []int{0, 1}},
		"items swapped":            {func(r *api.ReadResult) { r.Items[0], r.Items[1] = r.Items[1], r.Items[0] }, []int{0, 1}},
		"another owner's item":     {func(r *api.ReadResult) { r.Items[0] = r.Items[2] }, []int{0}},
		"an older leaf":            {func(r *api.ReadResult) { r.Items[0].Leaf = oldLeaf }, []int{0}},
		"no leaf":                  {func(r *api.ReadResult) { r.Items[0].Leaf = nil }, []int{0}},
		"a leaf cut short":         {func(r *api.ReadResult) { r.Items[0].Leaf = r.Items[0].Leaf[:80] }, []int{0}},
		"another proof":            {func(r *api.ReadResult) { r.Items[0].Proof = r.Items[1].Proof }, []int{0}},
		"no proof":                 {func(r *api.ReadResult) { r.Items[0].Proof = policies.Proof{} }, []int{0}},
		"a flipped capsule":        {func(r *api.ReadResult) { r.Items[0].Leaf[140] ^= 1 }, []int{0}},
		"a flipped ciphertext":     {func(r *api.ReadResult) { r.Items[0].Ciphertext[3] ^= 1 }, []int{0}},
		"another ciphertext":       {func(r *api.ReadResult) { r.Items[0].Ciphertext = r.Items[1].Ciphertext }, []int{0}},
		"no ciphertext":            {func(r *api.ReadResult) { r.Items[0].Ciphertext = nil }, []int{0}},
		"another grant":            {func(r *api.ReadResult) { r.Items[0].Grant = r.Items[2].Grant }, []int{0}},
		"no manifests, no grants":  {func(r *api.ReadResult) { r.Documents = nil }, []int{0, 1, 2}},
		"a refusal dressed up":     {func(r *api.ReadResult) { r.Items[0].Outcome = policies.CodeRevoked }, []int{}},
		"an older answer":          {func(r *api.ReadResult) { *r = *oldResult }, nil},
		"a flipped answer":         {func(r *api.ReadResult) { r.Answer[20] ^= 1 }, nil},
		"no answer":                {func(r *api.ReadResult) { r.Answer = nil }, nil},
		"fewer items":              {func(r *api.ReadResult) { r.Items = r.Items[:2] }, nil},
		"documents that are none":  {func(r *api.ReadResult) { r.Documents = []jsontext.Value{jsontext.Value(`{}`)} }, nil},
		"a manifest signed by me":  {func(r *api.ReadResult) { r.Documents = []jsontext.Value{other} }, []int{0, 1, 2}},
		"everything of item 2 (3)": {func(r *api.ReadResult) { r.Items[2] = r.Items[0] }, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := policies.Sign(envelope.NewPrivateKey(&[envelope.SeedSize]byte{77}), &policies.Manifest{
				Header: policies.NewHeader("manifest", o.now()), Audience: w.doc.Vault, Owner: o.ID(), Author: o.author(), Link: policies.Link{Seq: 1},
				Version: 1, Root: policies.Hash{1}, TreeSize: 1,
			})
			w.must(err)
			other = e.Raw
			w.onResult(c.change)
			defer w.hostile(nil)
			r := fresh()
			values, err := r.Read(ctx, items...)
			if c.bad == nil {
				if !errors.Is(err, ErrUntrue) {
					t.Fatalf("the read as a whole: %v", err)
				}
				return
			}
			w.must(err)
			for i, v := range values {
				want := ""
				if !strings.Contains(fmt.Sprint(c.bad), fmt.Sprint(i)) {
					want = []string{"note-2", "name", "other's note"}[i]
				}
				if string(v.Bytes) != want || want == "" && !errors.Is(v.Err, ErrUntrue) {
					t.Errorf("item %d: %q, %v; want %q", i, v.Bytes, v.Err, want)
				}
			}
			// The same reader reads well from an honest storefront.
			w.hostile(nil)
			if values, err := r.Read(ctx, items[0]); err != nil || string(values[0].Bytes) != "note-2" {
				t.Errorf("afterwards: %+v, %v", values, err)
			}
		})
	}

	t.Run("rollback", func(t *testing.T) {
		r := fresh()
		seenBefore(r, o, mark{Version: 99, Hash: policies.Hash{1}})
		if v := w.read(r, o, "note"); !errors.Is(v.Err, ErrRollback) || v.Bytes != nil {
			t.Errorf("an older manifest than the one seen: %q, %v", v.Bytes, v.Err)
		}
		values, err := r.Read(ctx, Item{Owner: o.ID(), Field: "note", Known: 2})
		if err != nil || !errors.Is(values[0].Err, ErrRollback) {
			t.Errorf("unchanged, under an older manifest: %+v, %v", values, err)
		}
		r = fresh()
		seenBefore(r, o, mark{Version: 2, Hash: policies.Hash{1}})
		if v := w.read(r, o, "note"); !errors.Is(v.Err, ErrUntrue) {
			t.Errorf("two manifests of one version: %v", v.Err)
		}
	})
	t.Run("replaced on the way", func(t *testing.T) { // a storefront need not be hostile for that
		for _, times := range []int{1, 2} {
			left := times
			w.onResult(func(r *api.ReadResult) {
				if left--; left >= 0 {
					r.Items[0] = api.ReadItem{Outcome: policies.CodeHeadMoved}
				}
			})
			values, err := fresh().Read(ctx, items...)
			w.must(err)
			if v := values[0]; times == 1 && string(v.Bytes) != "note-2" || times == 2 && !errors.Is(v.Err, policies.CodeHeadMoved) {
				t.Errorf("%d times: %q, %v", times, v.Bytes, v.Err)
			}
			if string(values[1].Bytes) != "name" || string(values[2].Bytes) != "other's note" {
				t.Errorf("the others: %v, %v", values[1].Err, values[2].Err)
			}
		}
		w.hostile(nil)
	})
	t.Run("sessions", func(t *testing.T) {
		w.rewrite(api.PathSessions, func(b []byte) []byte { return bytes.Replace(b, []byte(`"index":`), []byte(`"index":1`), 1) })
		defer w.hostile(nil)
		if _, err := fresh().Read(ctx, items...); !errors.Is(err, ErrUntrue) {
			t.Errorf("a session with a forged receipt: %v", err)
		}
	})
	t.Run("a session that the vault forgot", func(t *testing.T) {
		r := fresh()
		w.wantRead(r, o, "note", "note-2")
		r.session.hash[0] ^= 1
		w.wantRead(r, o, "note", "note-2")
	})
}

func TestHostileIntroductions(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("Acme")
	impostor, _ := w.reader("Acme")
	code, err := o.Code()
	w.must(err)

	// The storefront serves the impostor's identity under the reader's id, and the owner's under anybody's.
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.Contains(q.URL.Path, "/identities/") {
			rw.Write(impostor.state.Identity)
			return
		}
		next.ServeHTTP(rw, q)
	})
	if _, err := o.Connect(ctx, r.Code(), "acme"); !errors.Is(err, ErrUntrue) {
		t.Errorf("an owner took another identity: %v", err)
	}
	if _, err := r.Connect(ctx, code, "c"); !errors.Is(err, ErrUntrue) {
		t.Errorf("a reader took another identity: %v", err)
	}
	w.hostile(nil)

	// Relationships that are not the reader's answer to this owner's code.
	_, err = r.Connect(ctx, code, "c")
	w.must(err)
	forge := func(signer *envelope.PrivateKey, change func(*policies.Relationship)) jsontext.Value {
		key := impostor.root.ReaderKey(o.ID(), code.Nonce)
		d := &policies.Relationship{
			Header: policies.NewHeader("relationship", o.now()), Audience: w.doc.Vault, Reader: r.ID(), Owner: o.ID(), KEMKey: key.Public(), Nonce: code.Nonce,
		}
		change(d)
		e, err := policies.Sign(signer, d)
		w.must(err)
		return e.Raw
	}
	for name, raw := range map[string]jsontext.Value{
		"signed by another":   forge(impostor.signing, func(*policies.Relationship) {}),
		"another's, honestly": forge(impostor.signing, func(d *policies.Relationship) { d.Reader = impostor.ID() }),
		"a nonce never given": forge(r.signing, func(d *policies.Relationship) { d.Nonce = policies.NewNonce() }),
		"for another owner":   forge(r.signing, func(d *policies.Relationship) { d.Owner = policies.OwnerID{1} }),
		"for another vault":   forge(r.signing, func(d *policies.Relationship) { d.Audience = policies.VaultID{1} }),
		"no document":         jsontext.Value(`{"a":1}`),
	} {
		w.rewrite(api.PathRelationships, func([]byte) []byte {
			b, _ := json.Marshal(api.Envelopes{Envelopes: []jsontext.Value{raw}})
			return b
		})
		if _, err := o.Connect(ctx, r.Code(), "acme"); !errors.Is(err, ErrNotConnected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.hostile(nil)
	if c, err := o.Connect(ctx, r.Code(), "acme"); err != nil || c.Name != "Acme" {
		t.Errorf("the real one: %+v, %v", c, err)
	}
}

func TestHostileVaultDocument(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	sign := func(seed byte, change func(*policies.VaultDocument)) []byte {
		ceremony := envelope.NewPrivateKey(&[envelope.SeedSize]byte{seed})
		d := *w.doc
		d.CeremonyKey = ceremony.Public().Bytes()
		change(&d)
		e, err := policies.Sign(ceremony, &d)
		w.must(err)
		return e.Raw
	}
	for name, raw := range map[string][]byte{
		"another ceremony":  sign(4, func(*policies.VaultDocument) {}),
		"another vault":     sign(3, func(d *policies.VaultDocument) { d.Vault = policies.VaultID{1} }),
		"an older version":  sign(3, func(d *policies.VaultDocument) { d.Version = 1 }),
		"not a document":    []byte(`{}`),
		"of another's sign": bytes.Replace(sign(3, func(d *policies.VaultDocument) {}), []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1),
	} {
		w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
			if q.URL.Path == api.PathVault {
				rw.Write(raw)
				return
			}
			next.ServeHTTP(rw, q)
		})
		w.mu.Lock()
		w.owners = true
		w.mu.Unlock()
		// The second route has the real one, so nothing but that is used.
		o := reopen(m, w)
		if v, err := o.Vault(ctx); err != nil || v.Version != 2 || v.Vault != w.doc.Vault {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		// Without a second route there is none.
		o = reopen(m, w)
		o.wire.owners = nil
		if _, err := o.Vault(ctx); !errors.Is(err, ErrUntrue) {
			t.Errorf("%s, and no second route: %v", name, err)
		}
	}
}

func TestRevocationRoutes(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	fields := []policies.Field{"note", "name.full", "tax.id", "tax.vat", "id.card", "bank.bic", "own/a"}
	for _, f := range fields {
		w.must(o.Set(ctx, set(f, "v")))
	}
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), fields, GrantOptions{}))
	down := func(owners bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.owners = !owners
	}
	keep := RevokeOptions{KeepEpoch: true}

	// The storefront is silent: the second route stops the reader.
	w.silent("/revocations")
	w.must(o.Revoke(ctx, r.ID(), fields[:1], keep))
	w.hostile(nil)
	w.wantRefusal(r, o, fields[0], policies.CodeRevoked)
	w.must(o.Sync(ctx)) // and the storefront is told
	if len(o.state.Untold) != 0 || o.state.Applied != o.state.Known {
		t.Errorf("after the sync: %d revocations untold, %+v and %+v", len(o.state.Untold), o.state.Applied, o.state.Known)
	}

	// It answers with lies: a receipt of something else, of an earlier revocation, none, or a refusal that the vault did not sign.
	chain, err := w.vault.Chain(o.ID())
	w.must(err)
	earlier, err := json.Marshal(chain.Receipt)
	w.must(err)
	if _, entry, _, err := chain.Receipt.Verify(w.doc, chain.Hash); err != nil || entry.Kind != evidence.EntryRevocation {
		t.Fatalf("the newest of the chain is a %s, %v", entry.Kind, err)
	}
	lies := map[string]func(http.ResponseWriter){
		"nothing":        func(rw http.ResponseWriter) { rw.Write([]byte(`{}`)) },
		"moved":          func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeChain) },
		"not malformed":  func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeMalformed) },
		"older receipt":  nil,
		"earlier one's":  func(rw http.ResponseWriter) { rw.Write(earlier) },
		"another answer": func(rw http.ResponseWriter) { io.WriteString(rw, "done") },
	}
	var older []byte
	w.rewrite("/manifests", func(b []byte) []byte { older = bytes.Clone(b); return b })
	w.must(o.Set(ctx, set("note", "w")))
	lies["older receipt"] = func(rw http.ResponseWriter) { rw.Write(older) }
	next := 1
	for name, lie := range lies {
		f := fields[next : next+1]
		w.hostile(func(rw http.ResponseWriter, q *http.Request, honest http.Handler) {
			if strings.HasSuffix(q.URL.Path, "/revocations") {
				lie(rw)
				return
			}
			honest.ServeHTTP(rw, q)
		})
		down(true)
		err := o.Revoke(ctx, r.ID(), f, keep)
		if !errors.Is(err, ErrNotStopped) {
			t.Errorf("%s: %v", name, err)
		}
		w.wantRead(r, o, f[0], "v") // and indeed it is not stopped
		if list := o.Grants(false); !strings.Contains(fmt.Sprint(list), "NOT STOPPED YET") {
			t.Errorf("%s: the list of grants does not say so: %v", name, list)
		}
		// The device is restarted; the wish is still there, and the second route carries it out.
		down(false)
		o = reopen(m, w)
		if err := o.Sync(ctx); errors.Is(err, ErrNotStopped) {
			t.Errorf("%s: over the second route: %v", name, err)
		}
		w.hostile(nil)
		w.must(o.Sync(ctx))
		w.wantRefusal(r, o, f[0], policies.CodeRevoked)
		next++
	}
}

// A second device granted what this one does not know of, and the storefront shows neither that nor anything else. What is known of is stopped at
// once; that the reader is, nobody can say before the storefront shows what the other device did, and then it is.
func TestRevokeBehindAnotherDevice(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	one, _ := w.owner()
	r, _ := w.reader("R")
	w.must(one.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(one, r, "r")
	w.must(one.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	var plain []byte
	_, err := one.Backup(false, func(b []byte) error { plain = append(plain, b...); return nil })
	w.must(err)
	two, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	w.must(two.Sync(ctx))
	w.must(two.Grant(ctx, r.ID(), []policies.Field{"tax.id"}, GrantOptions{}))
	w.must(two.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{})) // which takes the place of the grant that one knows of

	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.Contains(q.URL.Path, "/chain") || strings.Contains(q.URL.Path, "/revocations") || strings.Contains(q.URL.Path, "/mirror") {
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, q)
	})
	if err := one.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{KeepEpoch: true}); !errors.Is(err, ErrNotStopped) {
		t.Errorf("with a grant that nobody named: %v", err)
	}
	w.hostile(nil)
	w.must(one.Sync(ctx))
	w.wantRefusal(r, one, "note", policies.CodeRevoked)
	w.must(one.Revoke(ctx, r.ID(), nil, RevokeOptions{}))
	w.wantRefusal(r, one, "tax.id", policies.CodeRevoked)
}

// A storefront that holds a grant back and delivers it after the revocation delivers nothing.
func TestGrantHeldBack(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	var held []byte
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.HasSuffix(q.URL.Path, "/grants") && q.Method == "POST" {
			held, _ = io.ReadAll(q.Body)
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, q)
	})
	if err := o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}); !errors.Is(err, policies.CodeUnavailable) {
		t.Fatalf("granting: %v", err)
	}
	if err := o.Revoke(ctx, r.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrNotStopped) {
		t.Fatalf("while the grant may still arrive: %v", err)
	}
	w.hostile(nil)
	w.must(o.Sync(ctx))
	if len(o.state.Tasks) != 0 {
		t.Fatalf("%d tasks are left", len(o.state.Tasks))
	}
	var s vaultapi.Submission
	w.must(envelope.Decode(held, &s))
	if _, err := w.vault.Submit(ctx, s); err == nil {
		t.Fatal("the grant that was held back was accepted")
	}
	if v := w.read(r, o, "note"); v.Err == nil {
		t.Fatal("the reader reads")
	}
}

func TestHostileChain(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	before := bytes.Clone(m.state)
	// A revocation that the owner signed but the storefront did not pass on is shown as part of the chain.
	v, err := o.vault(ctx)
	w.must(err)
	e, _, err := o.build(&task{Kind: taskRevoke, Reader: r.ID(), Reason: policies.ReasonWithdrawn}, v)
	w.must(err)
	w.rewrite("/chain", func([]byte) []byte {
		b, _ := json.Marshal(api.Chain{Documents: []jsontext.Value{e.Raw}})
		return b
	})
	if err := o.Sync(ctx); !errors.Is(err, ErrUntrue) {
		t.Errorf("a document that the vault did not accept: %v", err)
	}
	if list := o.Grants(false); len(list) != 1 || list[0].Status != "in force" {
		t.Errorf("it was believed: %+v", list)
	}
	// A document of somebody else.
	w.rewrite("/chain", func([]byte) []byte {
		d, _ := policies.Decode[policies.Revocation](e)
		forged, err := policies.Sign(r.signing, d)
		w.must(err)
		b, _ := json.Marshal(api.Chain{Documents: []jsontext.Value{forged.Raw}})
		return b
	})
	if err := o.Sync(ctx); !errors.Is(err, ErrUntrue) {
		t.Errorf("a document that somebody else signed: %v", err)
	}
	w.hostile(nil)
	if err := o.Sync(ctx); err != nil {
		t.Errorf("an honest sync: %v", err)
	}
	// A new device is shown only a part of the chain.
	var plain []byte
	_, err = o.Backup(false, func(b []byte) error { plain = append(plain, b...); return nil })
	w.must(err)
	w.rewrite("/chain", func(b []byte) []byte {
		var c api.Chain
		w.must(envelope.Decode(b, &c))
		if len(c.Documents) > 0 {
			c.Documents, c.More = c.Documents[:1], false
		}
		b, _ = json.Marshal(c)
		return b
	})
	two, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	if err := two.Sync(ctx); err != nil || len(two.Grants(false)) != 1 {
		t.Errorf("a part of the chain, and a vault that has the rest: %v", err)
	}
	// A mirror that is not the manifest's.
	w.rewrite("/mirror", func(b []byte) []byte {
		var mirror api.Mirror
		w.must(envelope.Decode(b, &mirror))
		mirror.Leaves = nil
		b, _ = json.Marshal(mirror)
		return b
	})
	two, err = RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	if err := two.Sync(ctx); !errors.Is(err, ErrUntrue) {
		t.Errorf("another mirror: %v", err)
	}
	_ = before
}

// TestLostDevice: a device sends a revocation past a silent storefront and is lost. Another one fetches it from the vault, tells the storefront and
// goes on; without the vault's listener it says what is wrong.
func TestLostDevice(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	var plain []byte
	_, err := o.Backup(false, func(b []byte) error { plain = append(plain, b...); return nil })
	w.must(err)
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.silent("/revocations")
	w.must(o.Revoke(ctx, r.ID(), []policies.Field{"note"}, RevokeOptions{KeepEpoch: true}))
	w.hostile(nil)
	o.state.Untold = nil // it will never tell
	w.must(o.Set(ctx, set("note", "m")))

	two, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	owners := two.wire.owners
	two.wire.owners = nil
	if err := two.Sync(ctx); !errors.Is(err, policies.CodeBehind) {
		t.Errorf("without the vault's listener: %v", err)
	}
	two.wire.owners = owners
	w.must(two.Sync(ctx))
	if list := two.Grants(false); len(list) != 0 {
		t.Errorf("the revocation is not known: %+v", list)
	}
	w.must(two.Set(ctx, set("note", "k")))
	three, err := RestoreOwner(new(memory), plain, Options{})
	w.must(err)
	three.wire.owners = nil
	w.must(three.Sync(ctx)) // the storefront's chain has no gap any more
	w.wantRefusal(r, two, "note", policies.CodeRevoked)
}

// TestSwappedKeys: the vault's host, with the PIN and while the vault is down, gives two resident keys each other's ids. The vault does not see it: it
// re-encrypts with the wrong key. No reader takes what comes of it for a value, not of a field of the other key either, and nobody reads what they were not granted.
// A revocation destroys the key that was granted, whatever it is called now, and the log says that it had another name.
func TestSwappedKeys(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	a, _ := w.reader("A")
	b, _ := w.reader("B")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, a, "a")
	w.connect(o, b, "b")
	w.must(o.Grant(ctx, a.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.must(o.Grant(ctx, b.ID(), []policies.Field{"tax.id"}, GrantOptions{}))
	w.wantRead(a, o, "note", "n")
	swap := func() {
		w.token.mu.Lock()
		defer w.token.mu.Unlock()
		ids := slices.Collect(maps.Keys(w.token.keys))
		if len(ids) != 2 {
			t.Fatalf("%d keys", len(ids))
		}
		w.token.keys[ids[0]], w.token.keys[ids[1]] = w.token.keys[ids[1]], w.token.keys[ids[0]]
	}
	swap()
	w.wantRefusal(a, o, "note", ErrUntrue)
	w.wantRefusal(b, o, "tax.id", ErrUntrue)
	w.wantRefusal(a, o, "tax.id", policies.CodeNoGrant)
	w.wantRefusal(b, o, "note", policies.CodeNoGrant)
	swap()
	w.wantRead(a, o, "note", "n")
	w.wantRead(b, o, "tax.id", "t")

	swap()
	ids := map[vault.KeyCheck]vault.KeyID{}
	w.token.mu.Lock()
	for id, key := range w.token.keys { // swapped: each has the other's name
		for other := range w.token.keys {
			if other != id {
				ids[checkOf(key)] = other
			}
		}
	}
	w.token.mu.Unlock()
	w.must(o.Revoke(ctx, a.ID(), nil, RevokeOptions{}))
	w.wantRefusal(a, o, "note", policies.CodeRevoked)
	w.token.mu.Lock()
	for id, key := range maps.Clone(w.token.keys) { // the one that is left goes back to its name
		delete(w.token.keys, id)
		w.token.keys[ids[checkOf(key)]] = key
	}
	w.token.mu.Unlock()
	w.wantRead(b, o, "tax.id", "t")
	var notes []string
	w.must(o.eachEntry(ctx, 10, false, func(_ uint64, _ time.Time, entry evidence.Entry, d *evidence.Details) bool {
		if entry.Kind == evidence.EntryDestroyed {
			notes = append(notes, d.Note)
		}
		return true
	}))
	if !slices.Equal(notes, []string{"1 under another name"}) {
		t.Errorf("the log says of the end of the key %q", notes)
	}
}

// TestLostMuch: a storefront that lost everything gets it again, also when it is more than fits one body, and when it forgets what came ahead.
func TestLostMuch(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("R")
	var changes []Change
	for i := range 18 {
		changes = append(changes, Change{policies.Field(fmt.Sprintf("scan/%02d", i)), bytes.Repeat([]byte{byte(i)}, policies.MaxValue)})
	}
	w.must(o.Set(ctx, changes...))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"scan/17"}, GrantOptions{}))
	var ahead, forgot atomic.Int64
	empty := w.emptyStorefront().Config.Handler
	fresh := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/manifests") {
			body, err := io.ReadAll(q.Body)
			w.must(err)
			q.Body = io.NopCloser(bytes.NewReader(body))
			var p api.Publication
			w.must(envelope.Decode(body, &p))
			if p.Ahead {
				ahead.Add(1)
			} else if forgot.Add(1) == 1 {
				problem.Write(rw, policies.CodeBehind)
				return
			}
		}
		empty.ServeHTTP(rw, q)
	}))
	defer fresh.Close()
	o, err := OpenOwner(m, Options{Storefront: fresh.URL, Roots: []byte(w.network.Roots)})
	w.must(err)
	w.must(o.Sync(ctx))
	mirror, err := o.fetchMirror(ctx)
	w.must(err)
	if ahead.Load() != 4 || forgot.Load() != 2 {
		t.Errorf("%d bodies went ahead of %d, want 4 and 2", ahead.Load(), forgot.Load())
	}
	if len(mirror.Leaves) != len(changes) {
		t.Fatalf("%d of %d fields are back", len(mirror.Leaves), len(changes))
	}
	for _, c := range []Change{changes[0], changes[17]} {
		leaf := o.view()[c.Field].leaf
		var got []byte
		w.must(o.wire.call(ctx, request{method: "GET", path: path(api.PathItem, o.id.String(), leaf.Hash().String()), out: &got, login: true, limit: maxRead}))
		if want, err := o.ciphertext(ctx, &leaf); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d, %v", c.Field, len(got), len(want), err)
		}
	}
}

// TestHiddenTail: the storefront shows the chain without its end, which looks whole. A change is refused by the vault, and the device fetches the end
// from there; without the vault's listener it says that something comes first that it is not shown.
func TestHiddenTail(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n")))
	w.connect(o, r, "r")
	two := second(t, w, o)
	w.must(two.Sync(ctx))
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	w.rewrite("/chain", func([]byte) []byte { return []byte(`{"documents":[]}`) })
	owners := two.wire.owners
	two.wire.owners = nil
	if err := two.Set(ctx, set("note", "m")); !errors.Is(err, policies.CodeChain) {
		t.Errorf("without the vault's listener: %v", err)
	}
	two.wire.owners = owners
	w.must(two.Set(ctx, set("note", "k")))
	if list := two.Grants(false); len(list) != 1 {
		t.Errorf("the grant is not known: %+v", list)
	}
	w.wantRead(r, o, "note", "k")
}

func TestHostileHistory(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	victim, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	var others []byte
	w.rewrite("/history", func(b []byte) []byte { others = bytes.Clone(b); return b })
	_, err := victim.History(ctx, 10)
	w.must(err)
	for name, change := range map[string]func([]byte) []byte{
		"somebody else's": func([]byte) []byte { return others },
		"edited": func(b []byte) []byte {
			var h vaultapi.History
			w.must(envelope.Decode(b, &h))
			h.Entries[0].Opening.Details = bytes.Replace(h.Entries[0].Opening.Details, []byte(`"version":1`), []byte(`"version":2`), 1)
			h.Entries[0].Leaf[9] ^= 1
			b, _ = json.Marshal(h)
			return b
		},
		"out of order": func(b []byte) []byte {
			var h vaultapi.History
			w.must(envelope.Decode(b, &h))
			h.Entries = append(h.Entries, h.Entries...)
			b, _ = json.Marshal(h)
			return b
		},
		"another checkpoint": func(b []byte) []byte {
			var h vaultapi.History
			w.must(envelope.Decode(b, &h))
			h.Checkpoint = strings.Replace(h.Checkpoint, "\n2\n", "\n3\n", 1) + "x"
			b, _ = json.Marshal(h)
			return b
		},
	} {
		w.rewrite("/history", change)
		if _, err := o.History(ctx, 50); !errors.Is(err, ErrUntrue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of entries whose retention is over the details are gone. That is shown; that a storefront left out what is there, or shows somebody else's, is not believed.
func TestErasedHistory(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	other, _ := w.owner()
	r, _ := w.reader("Acme")
	var foreign vaultapi.History
	for alias, x := range map[string]*Owner{"other": other, "own": o} {
		w.must(x.Set(ctx, set("note", "n")))
		w.connect(x, r, alias)
		w.must(x.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
		w.wantRead(r, x, "note", "n")
	}
	w.rewrite("/history", func(b []byte) []byte { w.must(envelope.Decode(b, &foreign)); return b })
	_, err := other.History(ctx, 50)
	w.must(err)
	// without is a history in which the entries of a kind come without what opens them.
	without := func(kind evidence.Kind, more ...evidence.Evidence) {
		w.rewrite("/history", func(b []byte) []byte {
			var h vaultapi.History
			w.must(envelope.Decode(b, &h))
			h.Entries = append(more, h.Entries...)
			slices.SortFunc(h.Entries, func(a, b evidence.Evidence) int { return int(b.Index) - int(a.Index) })
			for i := range h.Entries {
				if _, e, err := evidence.ParseLogLeaf(h.Entries[i].Leaf); err == nil && e.Kind == kind {
					h.Entries[i].Opening = evidence.Opening{}
				}
			}
			b, _ = json.Marshal(h)
			return b
		})
	}
	without(evidence.EntryUse)
	if _, err := o.History(ctx, 50); !errors.Is(err, ErrUntrue) {
		t.Errorf("a use of a moment ago without its details: %v", err)
	}
	now := o.now
	o.now = func() time.Time { return now().Add(leastKept + time.Hour) }
	seen, err := o.History(ctx, 50)
	w.must(err)
	told := 0
	for _, e := range seen {
		if e.Kind == evidence.EntryUse && strings.Contains(e.Text, "erased") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d uses are told to be erased: %+v", told, seen)
	}
	for _, kind := range []evidence.Kind{evidence.EntryManifest, evidence.EntryGrant, evidence.EntryImport, evidence.EntryIdentity} {
		without(kind)
		if _, err := o.History(ctx, 50); !errors.Is(err, ErrUntrue) {
			t.Errorf("a %s without its details: %v", kind, err)
		}
	}
	for i := range foreign.Entries {
		if _, e, err := evidence.ParseLogLeaf(foreign.Entries[i].Leaf); err == nil && e.Kind == evidence.EntryUse {
			without(evidence.EntryUse, foreign.Entries[i])
			if _, err := o.History(ctx, 50); !errors.Is(err, ErrUntrue) {
				t.Errorf("somebody else's use: %v", err)
			}
		}
	}
}

// A checkpoint of a size that was seen before, with another root, is a fork, whoever signed it.
func TestFork(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	w.must(o.Set(ctx, set("note", "n")))
	r, err := w.vault.Chain(o.ID())
	w.must(err)
	w.must(o.receipt(ctx, w.doc, r.Receipt, r.Hash, evidence.EntryManifest))
	if err := o.receipt(ctx, w.doc, r.Receipt, r.Hash, evidence.EntryGrant); !errors.Is(err, ErrUntrue) || errors.Is(err, ErrFork) {
		t.Errorf("a receipt of another kind: %v", err)
	}
	o.trust.checkpoint.Root[0] ^= 1
	if err := o.receipt(ctx, w.doc, r.Receipt, r.Hash, evidence.EntryManifest); !errors.Is(err, ErrFork) {
		t.Errorf("two roots of one size: %v", err)
	}
}

// No device tells a storefront what it decapsulated, and an answer is bound to the server that the device dialled.
func TestLoginIsNoOracle(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	login := pre.NewLoginKey(o.root.LoginSeed())
	ct, secret, err := pre.NewChallenge(login.Public(), nil)
	w.must(err)
	var challenged api.ChallengeRequest
	var proof api.LoginAnswer
	nonce := policies.NewNonce()
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		body, _ := io.ReadAll(q.Body)
		switch q.URL.Path {
		case api.PathChallenges:
			w.must(envelope.Decode(body, &challenged))
			b, _ := json.Marshal(api.LoginChallenge{ID: policies.NewDocumentID(), Ciphertext: ct, Nonce: nonce, Expires: 1 << 40})
			rw.Write(b)
		case api.PathLogins:
			w.must(envelope.Decode(body, &proof))
			problem.Write(rw, policies.CodeUnauthorized)
		default:
			q.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(rw, q)
		}
	})
	o = reopen(m, w)
	if err := o.Set(ctx, set("note", "n")); !errors.Is(err, policies.CodeUnauthorized) {
		t.Fatalf("logging in: %v", err)
	}
	c := &pre.Challenge{Subject: o.id, Ciphertext: ct, Nonce: nonce, FreshKey: challenged.Key}
	c.Server = "honest.example:443"
	if secret.Verify(c, proof.Proof) == nil {
		t.Error("the proof serves at another server")
	}
	c.Server = o.wire.storefront.Host
	if err := secret.Verify(c, proof.Proof); err != nil {
		t.Errorf("the proof is not for the server that was dialled: %v", err)
	}
}

// Another storefront on the same vault, which knows nobody: the device brings everything with it.
func TestStorefrontThatLostEverything(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.must(o.Remove(ctx, "tax.id"))
	fresh := w.emptyStorefront()
	o, err := OpenOwner(m, Options{Storefront: fresh.URL, Roots: []byte(w.network.Roots)})
	w.must(err)
	if err := o.Sync(ctx); err != nil {
		t.Fatalf("with an empty storefront: %v", err)
	}
	w.must(o.Set(ctx, set("note", "again")))
	mirror, err := o.fetchMirror(context.Background())
	w.must(err)
	if len(mirror.Leaves) != 1 {
		t.Errorf("the new storefront has %d leaves, want 1", len(mirror.Leaves))
	}
}

// seenBefore has a reader have seen a manifest of an owner.
func seenBefore(r *Reader, o *Owner, m mark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, _ := r.owner(o.ID())
	k.contact.Mark = m
	if err := r.put(k); err != nil {
		panic(err)
	}
}
