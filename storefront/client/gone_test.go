package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
)

// statusOf is what a device lists of a reader's permissions, to read and to write.
func statusOf(o *Owner, r *Reader) map[string]string {
	out := map[string]string{}
	for _, g := range o.Grants(true) {
		if g.Reader == r.ID() {
			out[string(g.Field)] = g.Status
		}
	}
	for _, g := range o.Writers(true) {
		if g.Writer == policies.AuthorID(r.ID()) {
			out["write "+string(g.Field)] = g.Status
		}
	}
	return out
}

// agree waits until the log says that nobody can undo what ended: the vault destroys the keys in the background.
func agree(t *testing.T, o *Owner) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		v, err := o.Verify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Agrees() {
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("the log and the device: %+v", v.Checks)
		}
	}
}

// heard syncs until a device has heard of somebody's closing: the storefront tells it in the background.
func heard(t *testing.T, o *Owner, r *Reader) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err := o.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, gone := o.gone(r.ID()); gone {
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing is heard of it")
		}
	}
}

// TestReaderDeletedAccount: a reader deletes its account. Its owners hear of it with the vault's receipt, on each of their devices, also on one that did not know of the permission; it is listed as ended, and why; the log
// agrees, and a rotation goes by the reader that is no more. What it wrote is still there for the others.
func TestReaderDeletedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, globex := w.household(2)
	older := reopen(m.clone(), w)
	w.must(o.Set(ctx, set("own/late", "late")))
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"own/late"}, GrantOptions{}))
	w.must(o.Revoke(ctx, acme.ID(), []policies.Field{"own/f1"}, RevokeOptions{KeepEpoch: true}))
	w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.must(acme.Write(ctx, o.ID(), set("own/f0", "by acme")))
	w.wantRead(globex, o, "own/f0", "by acme")
	w.close(acme)
	heard(t, o, acme)
	list := o.GivenUp()
	if len(list) != 1 || !list[0].Closed || list[0].Alias != "acme" || len(list[0].Fields) != 2 {
		t.Errorf("the owner hears: %+v", list)
	}
	w.must(o.Sync(ctx))
	if n := len(o.GivenUp()); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	want := map[string]string{"own/f0": "closed", "own/f1": "revoked", "own/late": "closed", "write own/f0": "closed"}
	check := func(o *Owner, what string) {
		t.Helper()
		got := statusOf(o, acme)
		for f, status := range want {
			if got[f] != status {
				t.Errorf("%s: %s is listed as %q, want %q", what, f, got[f], status)
			}
		}
		if status := statusOf(o, globex)["own/f0"]; status != "in force" {
			t.Errorf("%s: another's is listed as %q", what, status)
		}
		for _, g := range o.Grants(false) {
			if g.Reader == acme.ID() {
				t.Errorf("%s: in force: %+v", what, g)
			}
		}
		agree(t, o)
	}
	check(o, "at once")
	check(reopen(m, w), "opened again")
	w.must(older.syncGivenUp(ctx)) // before it has met the newest permission
	w.must(older.Sync(ctx))
	check(older, "another device")
	events, err := o.History(ctx, 100)
	w.must(err)
	told := 0
	for _, e := range events {
		if e.Kind == evidence.EntryDestroyed && strings.Contains(e.Text, "acme deleted the account") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the history tells it %d times", told)
	}
	w.must(o.Rotate(ctx, "own/f0", "own/late"))
	w.wantRead(globex, o, "own/f0", "by acme")
	w.must(o.Set(ctx, set("own/f0", "by me")))
	w.wantRead(globex, o, "own/f0", "by me")
	if err := o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); !errors.Is(err, policies.CodeNoGrant) {
		t.Errorf("revoking what has ended: %v", err)
	}
	agree(t, o)
}

// TestReaderSaidToHaveDeletedAccount: a storefront that says so of a reader without its receipt, or with that of something else, is not believed. One that hides it leaves things as they were, until the log is
// verified, which has it.
func TestReaderSaidToHaveDeletedAccount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, globex := w.household(1)
	// The receipt of the closing of somebody with whom this owner has nothing to do, one of a grant, and none.
	second, _ := w.owner()
	w.must(second.Set(ctx, set("own/x", "x")))
	w.connect(second, acme, "second")
	w.must(second.Grant(ctx, acme.ID(), []policies.Field{"own/x"}, GrantOptions{}))
	gone, _ := w.reader("Gone")
	w.connect(second, gone, "gone")
	w.must(second.Grant(ctx, gone.ID(), []policies.Field{"own/x"}, GrantOptions{}))
	w.close(gone)
	heard(t, second, gone)
	theirs := renunciations(t, second)
	ofGrant, err := w.vault.Chain(o.ID())
	w.must(err)
	forged := *theirs.Renunciations[0].Receipt
	forged.Checkpoint = strings.Replace(forged.Checkpoint, "\n\n", "\nx\n\n", 1)
	for name, c := range map[string]struct {
		receipt *evidence.Receipt
		untrue  bool
	}{
		"none":          {nil, true},
		"of a grant":    {ofGrant.Receipt, true},
		"forged":        {&forged, true},
		"of a stranger": {theirs.Renunciations[0].Receipt, false},
	} {
		before := o.state.GivenUpTo
		w.say(api.PathRenunciations, api.Renunciations{Renunciations: []api.Renunciation{{Index: before + 1<<20, Receipt: c.receipt}}})
		if err := o.Sync(ctx); errors.Is(err, ErrUntrue) != c.untrue {
			t.Errorf("%s: %v", name, err)
		}
		if c.untrue && o.state.GivenUpTo != before {
			t.Errorf("%s: it is taken for heard", name)
		}
		for _, r := range []*Reader{acme, globex} {
			if status := statusOf(o, r)["own/f0"]; status != "in force" {
				t.Errorf("%s: listed as %q", name, status)
			}
		}
		w.hostile(nil)
	}
	if len(o.GivenUp()) != 0 {
		t.Errorf("the person is told %+v", o.GivenUp())
	}
	w.must(o.Sync(ctx))
	w.must(o.Sync(ctx))
	if len(o.state.Gone) != 0 {
		t.Errorf("kept of strangers: %+v", o.state.Gone)
	}
	// Hidden.
	o.state.GivenUpTo = 0
	w.say(api.PathRenunciations, api.Renunciations{Renunciations: []api.Renunciation{}})
	w.close(acme)
	w.must(o.Sync(ctx))
	if status := statusOf(o, acme)["own/f0"]; status != "in force" {
		t.Errorf("hidden: %q", status)
	}
	for begin := time.Now(); statusOf(o, acme)["own/f0"] != "closed"; time.Sleep(5 * time.Millisecond) {
		_, err := o.Verify(ctx)
		w.must(err)
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the log does not tell it either")
		}
	}
	agree(t, o)
	w.wantRead(globex, o, "own/f0", "value 0")
}

// TestEndedAndNotFinal: what ended with an account, and of which the log does not show that the keys are gone, is told by a verification.
func TestEndedAndNotFinal(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(1)
	w.close(acme)
	heard(t, o, acme)
	agree(t, o)
	for i := range o.state.Grants { // as if the log had left one out
		if g := &o.state.Grants[i]; g.Doc.Reader == acme.ID() {
			g.Gone = append(g.Gone, policies.RevokedItem{Grant: g.Doc.ID, Field: "own/f9", Author: policies.AuthorID(o.ID())})
		}
	}
	v, err := o.Verify(ctx)
	w.must(err)
	if v.Agrees() || len(v.Checks[3].Wrong) != 1 || !strings.Contains(v.Checks[3].Wrong[0].String(), "does not show yet") {
		t.Errorf("%+v", v.Checks)
	}
}

// renunciations is what the storefront answers an owner.
func renunciations(t *testing.T, o *Owner) (page api.Renunciations) {
	t.Helper()
	if err := o.wire.call(t.Context(), request{method: "GET", path: api.PathRenunciations, out: &page, login: true}); err != nil {
		t.Fatal(err)
	}
	return page
}

// say has the storefront answer a question with something of its own.
func (w *world) say(path string, answer any) {
	body, err := json.Marshal(answer)
	w.must(err)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet || r.URL.Path != path {
			next.ServeHTTP(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write(body)
	})
}
