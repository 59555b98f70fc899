package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// misplaces has a writer who may write `by` publish an item of f in an epoch, and with a version, of its own choosing. The vault sees only the root.
func (w *world) misplaces(o *Owner, r *Reader, by, f policies.Field, epoch, version uint64) {
	w.t.Helper()
	ctx := w.t.Context()
	v, err := r.vault(ctx)
	w.must(err)
	grants, _, err := r.fetchWriteGrants(ctx, o.ID())
	w.must(err)
	kem := pre.NewBlobKey(r.root.KEMSeed())
	defer kem.Zero()
	have, err := r.authorKey(kem, grants, by)
	w.must(err)
	key, err := pre.ParseAuthorKey(policies.Slot{Owner: o.ID(), Field: f, Epoch: epoch, Author: author(r)}, have.Bytes())
	w.must(err)
	wr := r.writingFor(o.ID())
	next := wr.Manifest.Version + 1
	if version == 0 {
		version = next
	}
	leaf, ciphertext, err := key.Seal(version, []byte("nobody reads this"), nil)
	w.must(err)
	wr.Set = []api.Item{{Leaf: leaf.Bytes(), Ciphertext: ciphertext}}
	tree, err := wr.tree()
	w.must(err)
	e, err := policies.Sign(r.signing, &policies.Manifest{
		Header: policies.NewHeader("manifest", r.now()), Audience: v.Vault, Owner: o.ID(), Author: author(r),
		Link: policies.Link{Seq: next, Prev: wr.Manifest.Hash}, Version: next, PrevManifest: wr.Manifest.Hash, TreeSize: tree.Size(), Root: tree.Root(),
	})
	w.must(err)
	receipt := new(evidence.Receipt)
	w.must(r.wire.call(ctx, request{method: "POST", path: path(api.PathManifests, o.ID().String()), in: &api.Publication{Manifest: e.Raw, Items: wr.Set}, out: receipt, login: true}))
	w.must(wr.accepted(e))
	wr.done()
}

func (w *world) reads(what string, r *Reader, o *Owner, f policies.Field, want string) {
	w.t.Helper()
	if v := w.read(r, o, f); v.Err != nil || string(v.Bytes) != want {
		w.t.Errorf("%s: %q, %v; want %q", what, v.Bytes, v.Err, want)
	}
}

// TestMisplacedItem: a writer publishes an item that does not count, in an epoch or with a version that it was never given. It keeps nobody from reading what the owner has.
func TestMisplacedItem(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	for name, c := range map[string]struct{ epoch, version uint64 }{"epoch": {77, 0}, "version": {1, 999}} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, _, acme, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
			w.misplaces(o, bank, phone, phone, c.epoch, c.version)
			w.reads("at once", acme, o, phone, "one")
			w.must(o.Set(ctx, set(phone, "newer")))
			w.reads("after the owner set it", acme, o, phone, "newer")
			w.must(o.EndWrite(ctx, bank.ID(), nil))
			w.reads("after the writer was ended", acme, o, phone, "newer")
			w.must(o.Sync(ctx))
			w.must(o.Rotate(ctx, phone))
			w.reads("after a rotation", acme, o, phone, "newer")
		})
	}
}

// TestMisplacedItemOfAnEndedWriter: the same by a writer whose permission for the field is over, and who may write another one.
func TestMisplacedItemOfAnEndedWriter(t *testing.T) {
	const phone, mail = policies.Field("phone.mobile"), policies.Field("email.home")
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone, mail}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set(phone, "theirs")))
	w.must(o.EndWrite(ctx, bank.ID(), []policies.Field{phone}))
	w.must(o.Set(ctx, set(phone, "newer")))
	w.reads("before", acme, o, phone, "newer")
	w.misplaces(o, bank, mail, phone, 77, 0)
	w.reads("at once", acme, o, phone, "newer")
	w.must(o.Set(ctx, set(phone, "newest")))
	w.reads("after the owner set it", acme, o, phone, "newest")
}

// TestWriteCrossesARotation: what a writer wrote under the old keys arrives at each moment of the field's move to new ones. It counts all the same, to those who could read before
// and to those who may from now on.
func TestWriteCrossesARotation(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	for name, at := range map[string]struct {
		path  string
		after bool
	}{
		"before the field moves":                  {"/manifests", false},
		"when the field has moved":                {"/manifests", true},
		"before the writer is given the new keys": {"/write-grants", false},
		"between new keys and the end of the old": {"/write-grants", true},
		"just before the end of the old":          {"/write-ends", false},
		"after the end of the old":                {"/write-ends", true},
		"when all is done":                        {},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, _, acme, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
			held, arrive, arrived := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var first, once atomic.Bool
			let := func() {
				if once.CompareAndSwap(false, true) {
					close(arrive)
					<-arrived
				}
			}
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/manifests") && first.CompareAndSwap(false, true) {
					close(held)
					<-arrive
					next.ServeHTTP(rw, r)
					close(arrived)
					return
				}
				here := r.Method == http.MethodPost && at.path != "" && strings.HasSuffix(r.URL.Path, at.path) && first.Load()
				if here && !at.after {
					let()
				}
				next.ServeHTTP(rw, r)
				if here && at.after {
					let()
				}
			})
			written := make(chan error, 1)
			go func() { written <- bank.Write(ctx, o.ID(), set(phone, "theirs")) }()
			<-held
			w.must(o.Rotate(ctx, phone))
			if at.path == "" {
				let()
			} else if !once.Load() {
				t.Error("the moment never came")
				let()
			}
			w.must(<-written)
			w.hostile(nil)
			w.must(o.Sync(ctx))
			w.wantBy(acme, o, phone, "theirs", author(bank))
			later, _ := w.reader("Later")
			w.connect(o, later, "later")
			w.must(o.Grant(ctx, later.ID(), []policies.Field{phone}, GrantOptions{}))
			w.wantBy(later, o, phone, "theirs", author(bank))
			w.must(o.Set(ctx, set(phone, "newer")))
			w.reads("after the owner set it", later, o, phone, "newer")
			w.must(o.EndWrite(ctx, bank.ID(), nil))
			w.must(o.Sync(ctx))
			w.reads("after the writer was ended", later, o, phone, "newer")
		})
	}
}

// TestToldThatNothingWasWritten: the storefront hides what a writer wrote from a device that never saw anything of the writer's, while the device moves the field. Nothing
// is lost by that, and the older permission ends when the storefront is honest again.
func TestToldThatNothingWasWritten(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	for name, hide := range map[string]func(http.ResponseWriter){
		"nothing was written": func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeNotFound) },
		"silence":             func(rw http.ResponseWriter) { http.Error(rw, "silence", http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, _, acme, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
			w.must(bank.Write(ctx, o.ID(), set(phone, "theirs")))
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if a := r.URL.Query().Get("author"); a != "" && a != o.ID().String() {
					hide(rw)
					return
				}
				next.ServeHTTP(rw, r)
			})
			w.must(o.Rotate(ctx, phone))
			w.must(o.Sync(ctx))
			live := func() (n int) {
				for _, i := range o.Writers(false) {
					if i.Status == "in force" {
						n++
					}
				}
				return n
			}
			if n := live(); n != 2 {
				t.Errorf("%d permissions are in force while the storefront hides what was written, want both", n)
			}
			w.hostile(nil)
			w.wantBy(acme, o, phone, "theirs", author(bank))
			w.must(o.Sync(ctx))
			if n := live(); n != 1 {
				t.Errorf("%d permissions are in force, want one", n)
			}
			w.wantBy(acme, o, phone, "theirs", author(bank))
			w.must(bank.Write(ctx, o.ID(), set(phone, "again")))
			w.wantBy(acme, o, phone, "again", author(bank))
		})
	}
}

// TestWrittenOnceComesBackNever: what a writer wrote is accepted and counts, and the writer does not learn it: killed, or not answered. The field moves, and something newer is
// written. When the writer finishes what it began, that stays the newest.
func TestWrittenOnceComesBackNever(t *testing.T) {
	const phone, mail = policies.Field("phone.mobile"), policies.Field("email.home")
	for name, c := range map[string]struct{ killed, machine bool }{
		"killed, the owner writes":             {true, false},
		"killed, another machine writes":       {true, true},
		"not answered, the owner writes":       {false, false},
		"not answered, another machine writes": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, _, acme, bank, bm := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone, mail}, GrantOptions{}))
			w.must(bank.Write(ctx, o.ID(), set(mail, "first")))
			second, err := OpenReader(&memory{state: slices.Clone(bm.state)}, Options{})
			w.must(err)
			defer second.Close()
			var posted atomic.Bool
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if posted.Load() {
					http.Error(rw, "silence", http.StatusBadGateway)
					return
				}
				next.ServeHTTP(rw, r)
				if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/manifests") {
					posted.Store(true)
				}
			})
			if err := bank.Write(ctx, o.ID(), set(phone, "old")); !errors.Is(err, policies.CodeUnavailable) {
				t.Fatalf("it heard that it counts: %v", err)
			}
			w.hostile(nil)
			w.reads("accepted", acme, o, phone, "old")
			w.must(o.Rotate(ctx, phone))
			w.reads("moved to new keys", acme, o, phone, "old")
			if c.machine {
				w.must(second.Write(ctx, o.ID(), set(phone, "newest")))
			} else {
				w.must(o.Set(ctx, set(phone, "newest")))
			}
			again := bank
			if c.killed {
				if again, err = OpenReader(bm, Options{}); err != nil {
					t.Fatal(err)
				}
				defer again.Close()
			}
			w.must(again.Write(ctx, o.ID(), set(mail, "second")))
			w.reads("when the writer has finished", acme, o, phone, "newest")
			w.reads("and what it wrote then", acme, o, mail, "second")
		})
	}
}

// TestWritersHoldNothingUp: whatever those who write do, and whatever the storefront shows of it, a field moves to new keys, a reader who is stopped is stopped, and what waits
// behind it is done. What was written is not lost.
func TestWritersHoldNothingUp(t *testing.T) {
	const phone, mail = policies.Field("phone.mobile"), policies.Field("email.home")
	for name, c := range map[string]struct {
		writers int
		fast    bool
	}{"six whom the storefront hides": {6, false}, "three who never pause": {3, true}} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, _, acme, bank, _ := w.clinic()
			var writers []*Reader
			var begun atomic.Bool
			var busy atomic.Int64
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				a := r.URL.Query().Get("author")
				switch {
				case c.fast && begun.Load() && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/write-ends"):
					for i, one := range writers {
						if err := one.Write(ctx, o.ID(), set(phone, fmt.Sprintf("by %d, again %d", i, busy.Add(1)))); err != nil {
							t.Error(err)
						}
					}
				case !c.fast && a != "" && a != o.ID().String() && strings.HasSuffix(r.URL.Path, "/mirror"):
					problem.Write(rw, policies.CodeNotFound)
					return
				}
				next.ServeHTTP(rw, r)
			})
			for i := range c.writers {
				r, _ := w.reader(fmt.Sprint("Writer ", i))
				w.connect(o, r, fmt.Sprint("writer ", i))
				w.must(o.GrantWrite(ctx, r.ID(), []policies.Field{phone}, GrantOptions{}))
				w.must(r.Write(ctx, o.ID(), set(phone, fmt.Sprint("by ", i))))
				writers = append(writers, r)
			}
			w.must(o.Grant(ctx, bank.ID(), []policies.Field{phone, mail}, GrantOptions{}))
			begun.Store(true)
			w.must(o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}))
			w.must(o.Sync(ctx))
			w.must(o.Set(ctx, set(mail, "newer")))
			if n := len(o.state.Tasks); n != 0 {
				t.Errorf("%d tasks wait: %s", n, o.state.Tasks[0].Kind)
			}
			w.reads("another field", bank, o, mail, "newer")
			w.hostile(nil)
			w.must(o.Sync(ctx))
			want := fmt.Sprint("by ", c.writers-1)
			if c.fast {
				want = fmt.Sprintf("by %d, again %d", c.writers-1, busy.Load())
			}
			w.reads("what was written last", bank, o, phone, want)
			if v := w.read(acme, o, phone); v.Err == nil {
				t.Error("who was stopped reads")
			}
			live := 0
			for _, i := range o.Writers(false) {
				if i.Status == "in force" {
					live++
				}
			}
			if live != c.writers {
				t.Errorf("%d permissions are in force, want one for each writer", live)
			}
		})
	}
}

// TestNewTermsOfAWriterCutShort: what a writer wrote last is asked for before older terms end. Who stops waiting then is not told that it is done, and it is done later.
func TestNewTermsOfAWriterCutShort(t *testing.T) {
	phone := []policies.Field{"phone.mobile"}
	w := newWorld(t)
	o, _, _, bank, _ := w.clinic()
	w.must(o.GrantWrite(t.Context(), bank.ID(), phone, GrantOptions{}))
	w.must(bank.Write(t.Context(), o.ID(), set(phone[0], "theirs")))
	ctx, cut := context.WithCancel(t.Context())
	var granted bool
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if granted && r.URL.Query().Get("author") == author(bank).String() {
			cut()
			hang(r)
		}
		next.ServeHTTP(rw, r)
		granted = granted || strings.HasSuffix(r.URL.Path, "/write-grants")
	})
	if err := o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{Duration: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("it says %v", err)
	}
	w.hostile(nil)
	w.must(o.Sync(t.Context()))
	for _, i := range o.Writers(false) {
		if i.Status == "in force" && time.Until(i.Expires) > 2*time.Hour {
			t.Errorf("the older terms are in force: %+v", i)
		}
	}
}

// TestTwoQueues: both devices were offline. The wider wish was made first, the narrower one after it. The device with the wider one comes online first.
func TestTwoQueues(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, _, _ := w.clinic()
	other := reopen(m.clone(), w)
	w.silent("/grants")
	w.secondRoute(false)
	if err := o.Grant(ctx, acme.ID(), []policies.Field{phone}, GrantOptions{Purpose: "wide"}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	if err := other.Grant(ctx, acme.ID(), []policies.Field{phone}, GrantOptions{Purpose: "narrow", Duration: time.Hour}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.Sync(ctx))
	_ = other.Sync(ctx)
	_ = other.Sync(ctx)
	w.must(o.Sync(ctx))
	for _, d := range []*Owner{o, other} {
		for _, g := range d.Grants(false) {
			if g.Field == phone && g.Reader == acme.ID() && g.Purpose != "narrow" {
				t.Errorf("in force is %q, and the person decided on %q last", g.Purpose, "narrow")
			}
		}
	}
}

// TestTwoQueuesOfWriters: the same of what somebody may write.
func TestTwoQueuesOfWriters(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	ctx, w := t.Context(), newWorld(t)
	o, m, _, bank, _ := w.clinic()
	w.must(o.Set(ctx, set("name.full", "n")))
	other := reopen(m.clone(), w)
	w.silent("rants")
	w.secondRoute(false)
	if err := o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{Purpose: "wide"}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	if err := other.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{Purpose: "narrow", Duration: time.Hour}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.Sync(ctx))
	_ = other.Sync(ctx)
	_ = other.Sync(ctx)
	w.must(o.Sync(ctx))
	for _, g := range o.Writers(false) {
		if g.Purpose != "narrow" {
			t.Errorf("in force is %q, and the person decided on %q last", g.Purpose, "narrow")
		}
	}
}

// TestTwoQueuesRevoked: a revocation waited on one device, and a grant that the person decided on after that, on the other. The revocation is made anew, because the chain went on.
func TestTwoQueuesRevoked(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, _, _ := w.clinic()
	other := reopen(m.clone(), w)
	w.silent("/v1")
	w.secondRoute(false)
	if err := o.Revoke(ctx, acme.ID(), []policies.Field{phone}, RevokeOptions{KeepEpoch: true}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	w.silent("/grants")
	w.must(other.Set(ctx, set("name.full", "n")))
	if err := other.Grant(ctx, acme.ID(), []policies.Field{phone}, GrantOptions{Purpose: "again"}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.Sync(ctx))
	if err := other.Sync(ctx); err != nil {
		t.Errorf("the later decision is not carried out: %v", err)
	}
	_ = other.Sync(ctx)
	w.wantGranted(other, acme, map[policies.Field]string{phone: "again", "email.home": DefaultPurpose})
}

// TestOvertakenAnswerTakesTheSourceBack: an answer of which a part is overtaken leaves its source no permission to write that part.
func TestOvertakenAnswerTakesTheSourceBack(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, m, employer, bank := w.threeWith()
	fields := []policies.Field{"income.net", "job.since"}
	w.must(zoe.Set(ctx, set(fields[0], "1")))
	w.must(zoe.Grant(ctx, bank.ID(), fields[:1], GrantOptions{Purpose: "before"}))
	ask := loan()
	for i := range ask.Fields {
		ask.Fields[i].Required = false
	}
	c, err := bank.Specify(ctx, zoe.ID(), policies.IdentityID(employer.ID()), ask)
	w.must(err)
	w.looks(zoe, 1)
	other := reopen(m.clone(), w)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/grants") {
			http.Error(rw, "silence", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	})
	w.secondRoute(false)
	if _, err := zoe.Answer(ctx, c.ID.String()[:8], fields, ""); err == nil {
		t.Fatal("it did not wait")
	}
	w.hostile(nil)
	w.secondRoute(true)
	zoe.age(false)
	w.must(other.Revoke(ctx, bank.ID(), fields[:1], RevokeOptions{}))
	for range 3 {
		_, err = zoe.Receive(ctx)
		_ = err
	}
	_ = zoe.Sync(ctx)
	for _, one := range zoe.Writers(false) {
		if one.Field == fields[0] {
			t.Errorf("the employer may write %s for %q (%s), which was not given to the bank", one.Field, one.Purpose, one.Status)
		}
	}
}

// overtake has a wish of one device wait, to let a reader read, and the other device end all that this reader has meanwhile.
func (w *world) overtake(o, other *Owner, reader *Reader) {
	w.t.Helper()
	w.silent("/grants")
	w.secondRoute(false)
	if err := o.Grant(w.t.Context(), reader.ID(), []policies.Field{"own/f0"}, GrantOptions{Purpose: "wish"}); err == nil {
		w.t.Fatal("it did not wait")
	}
	w.hostile(nil)
	w.secondRoute(true)
	o.age(false)
	w.must(other.Revoke(w.t.Context(), reader.ID(), nil, RevokeOptions{}))
}

// TestOvertakenFailsNothingElse: what went well does not look as if it had failed because a wish was overtaken.
func TestOvertakenFailsNothingElse(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, _ := w.household(1)
	other := reopen(m.clone(), w)
	w.overtake(o, other, acme)
	if err := o.Replace(ctx, stolen(), keep(new([]byte))); err != nil {
		t.Errorf("replaced, and it says: %v", err)
	}
}

// TestOvertakenIsToldByTheGrant: a wish is overtaken while something else is granted, and the device looks around behind that, since another reader replaced its keys. It is the grant that tells of
// the wish, as ever, and not what was done beside it.
func TestOvertakenIsToldByTheGrant(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, globex := w.household(2)
	third, _ := w.reader("Initech")
	w.connect(o, third, "initech")
	other := reopen(m.clone(), w)
	w.overtake(o, other, acme)
	w.must(globex.Replace(ctx, stolen(), keep(new([]byte))))
	o.looked = time.Time{}
	if err := o.Grant(ctx, third.ID(), []policies.Field{"own/f1"}, GrantOptions{}); !errors.Is(err, ErrOvertaken) {
		t.Errorf("it is told %v", err)
	}
	if list, err := o.Renewed(); err != nil || len(list) != 1 {
		t.Errorf("besides, %v was renewed: %v", list, err)
	}
}

// TestTakingBackIsNoDecision: an answer given on one device before the wish on the other is refused after it, and taken back by itself. That is no decision of the person's.
func TestTakingBackIsNoDecision(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, m, employer, bank := w.threeWith()
	fields := []policies.Field{"income.net", "job.since"}
	c, err := bank.Specify(ctx, zoe.ID(), policies.IdentityID(employer.ID()), loan())
	w.must(err)
	w.looks(zoe, 1)
	other := reopen(m.clone(), w)
	post := func(suffix string, answer func(http.ResponseWriter)) {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, suffix) {
				answer(rw)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	silence := func(rw http.ResponseWriter) { http.Error(rw, "silence", http.StatusBadGateway) }
	post("/grants", silence)
	if _, err := other.Answer(ctx, c.ID.String()[:8], fields, ""); err == nil || len(other.Writers(false)) == 0 {
		t.Fatalf("it did not wait: %v", err)
	}
	time.Sleep(1100 * time.Millisecond)
	post("/write-grants", silence)
	if err := zoe.GrantWrite(ctx, employer.ID(), fields[:1], GrantOptions{Purpose: "payroll"}); err == nil {
		t.Fatal("it did not wait")
	}
	time.Sleep(1100 * time.Millisecond)
	post("/grants", func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeGuardrail) })
	for range 2 {
		_, err = other.Receive(ctx)
		_ = err
	}
	w.hostile(nil)
	if err := zoe.Sync(ctx); err != nil {
		t.Errorf("the wish: %v", err)
	}
	_ = zoe.Sync(ctx)
	got := map[policies.Field]string{}
	for _, one := range zoe.Writers(false) {
		got[one.Field] += one.Purpose
	}
	if got[fields[0]] != "payroll" {
		t.Errorf("the employer may write %v; the last that the person decided was payroll", got)
	}
}

// TestOldEnds: what a device of before stored is read.
func TestOldEnds(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, bank, _ := w.clinic()
	const phone = policies.Field("phone.mobile")
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set(phone, "theirs")))
	w.must(o.EndWrite(ctx, bank.ID(), nil))
	o.Close()
	at := strings.Index(string(m.state), `"kept":`)
	if at < 0 {
		t.Fatal("nothing is kept")
	}
	i := strings.Index(string(m.state), `,"last":1}`)
	if i < 0 {
		t.Fatal("no last")
	}
	m.state = []byte(strings.Replace(string(m.state), `,"last":1}`, `}`, 1))
	o = reopen(m, w)
	if o.state.Writers[0].Ended[0].Kept.IsZero() || o.state.Writers[0].Ended[0].Last != 0 {
		t.Errorf("%+v", o.state.Writers[0].Ended)
	}
	w.must(o.Rotate(ctx, phone))
	w.reads("after", acme, o, phone, "theirs")
}

// hides has the storefront answer something else when it is asked what a writer wrote.
func (w *world) hides(r *Reader, answer func(http.ResponseWriter)) {
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if q.Method == http.MethodGet && q.URL.Query().Get("author") == author(r).String() {
			answer(rw)
			return
		}
		next.ServeHTTP(rw, q)
	})
}

// TestResealDoesNotWaitForOneWriter: one writer's page cannot be had, for ever. What the owner does after a replacement goes through all the same.
func TestResealDoesNotWaitForOneWriter(t *testing.T) {
	const phone, mail = policies.Field("phone.mobile"), policies.Field("email.home")
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set(phone, "theirs")))
	w.must(o.EndWrite(ctx, bank.ID(), nil))
	w.hides(bank, func(rw http.ResponseWriter) { problem.Write(rw, policies.CodeInternal) })
	_ = o.Replace(ctx, stolen(), keep(new([]byte)))
	for range 3 {
		_ = o.Sync(ctx)
	}
	if err := o.Set(ctx, set(mail, "newer")); err != nil {
		t.Errorf("setting another field: %v", err)
	}
	w.reads("another field", acme, o, mail, "newer")
}

// TestOvertakenOverCrashes: killed at each save of the run in which it is overtaken: the later decision counts all the same, and the person is told.
func TestOvertakenOverCrashes(t *testing.T) {
	const phone, mail = policies.Field("phone.mobile"), policies.Field("email.home")
	for _, writes := range []bool{false, true} {
		for n := 1; n < 12; n++ {
			ctx, w := t.Context(), newWorld(t)
			o, m, acme, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone, mail}, GrantOptions{Purpose: "before"}))
			other := reopen(m.clone(), w)
			w.silent("rants")
			w.secondRoute(false)
			var err error
			if writes {
				err = o.GrantWrite(ctx, bank.ID(), []policies.Field{phone, mail}, GrantOptions{Purpose: "wish"})
			} else {
				err = o.Grant(ctx, acme.ID(), []policies.Field{phone, mail}, GrantOptions{Purpose: "wish"})
			}
			if err == nil {
				t.Fatal("it did not wait")
			}
			w.hostile(nil)
			w.secondRoute(true)
			o.age(false)
			w.must(o.save())
			if writes {
				w.must(other.EndWrite(ctx, bank.ID(), []policies.Field{phone}))
			} else {
				w.must(other.Revoke(ctx, acme.ID(), []policies.Field{phone}, RevokeOptions{}))
			}
			m.mu.Lock()
			m.saves, m.limit = 0, n
			m.mu.Unlock()
			err = o.Sync(ctx)
			crashed := errors.Is(err, errCrash)
			told := errors.Is(err, ErrOvertaken)
			o.Close()
			m.mu.Lock()
			m.limit = 0
			m.mu.Unlock()
			o = reopen(m, w)
			err = o.Sync(ctx)
			told = told || errors.Is(err, ErrOvertaken)
			if !told {
				t.Errorf("writes=%v, save %d: not told", writes, n)
			}
			w.must(o.Sync(ctx))
			if writes {
				got := map[policies.Field]string{}
				for _, one := range o.Writers(false) {
					got[one.Field] += one.Purpose
				}
				if len(got) != 1 || got[mail] != "wish" {
					t.Errorf("save %d: %v", n, got)
				}
			} else {
				w.wantGranted(o, acme, map[policies.Field]string{mail: "wish"})
			}
			if !crashed {
				break
			}
		}
	}
}

// TestRotatedAndRefused: what follows a rotation is refused, after the rotation. Nothing says that it did not move.
func TestRotatedAndRefused(t *testing.T) {
	const phone = policies.Field("phone.mobile")
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	globex, _ := w.reader("Globex")
	w.connect(o, globex, "globex")
	w.must(o.Grant(ctx, globex.ID(), []policies.Field{phone}, GrantOptions{}))
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
	var published atomic.Bool
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/manifests"):
			published.Store(true)
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/grants") && published.Load():
			problem.Write(rw, problem.New(policies.CodeCustody, "no longer"))
			return
		}
		next.ServeHTTP(rw, r)
	})
	epoch := o.fieldEpoch(phone)
	err := o.Revoke(ctx, acme.ID(), []policies.Field{phone}, RevokeOptions{})
	w.hostile(nil)
	if errors.Is(err, ErrRotationRefused) && o.fieldEpoch(phone) > epoch {
		t.Errorf("it did move to new keys: %v", err)
	}
}

// TestOvertakenHoldsNoAnswer: a wish was overtaken. Then the person answers a request: it is granted, and the answer goes out.
func TestOvertakenHoldsNoAnswer(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, r, _ := w.met()
	c := w.asks(r, o, delivery())
	w.looks(o, 1)
	globex, _ := w.reader("Globex")
	w.connect(o, globex, "globex")
	f := o.Inbox(false)[0].Asked[0].Field
	w.must(o.Grant(ctx, globex.ID(), []policies.Field{f}, GrantOptions{}))
	other := reopen(m.clone(), w)
	w.silent("/grants")
	w.secondRoute(false)
	if err := o.Grant(ctx, globex.ID(), []policies.Field{f}, GrantOptions{Purpose: "wish"}); err == nil {
		t.Fatal("it did not wait")
	}
	w.hostile(nil)
	w.secondRoute(true)
	o.age(false)
	w.must(other.Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
	var all []policies.Field
	for _, a := range o.Inbox(false)[0].Asked {
		all = append(all, a.Field)
	}
	if _, err := o.Answer(ctx, c.ID.String()[:8], all, ""); err != nil {
		t.Errorf("answered, and it says: %v", err)
	}
	if len(o.state.Mail.Outbox) > 0 {
		t.Errorf("%d messages wait for the next time", len(o.state.Mail.Outbox))
	}
}
