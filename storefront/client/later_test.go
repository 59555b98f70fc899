package client

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
)

// What waits in the queue of a device was wanted when it was put there. It undoes nothing that the person decided since, on this device or another.

// lost has what is sent to a path come to nothing for the sender: it does not arrive, or it does and the answer is lost.
func (w *world) lost(word string, arrives bool) {
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodPost || !strings.Contains(r.URL.Path, word) {
			next.ServeHTTP(rw, r)
			return
		}
		if arrives {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		http.Error(rw, "silence", http.StatusBadGateway)
	})
}

// wantGranted compares what a reader is granted, as a device knows it, by purpose.
func (w *world) wantGranted(o *Owner, r *Reader, want map[policies.Field]string) {
	w.t.Helper()
	got := map[policies.Field]string{}
	for _, g := range o.Grants(false) {
		if g.Reader == r.ID() {
			got[g.Field] += g.Purpose
		}
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("granted: %v, want %v", got, want)
	}
}

// wantNoWriter has a writer try.
func (w *world) wantNoWriter(o *Owner, r *Reader, f policies.Field) {
	w.t.Helper()
	if err := r.Write(w.t.Context(), o.ID(), set(f, "not wanted")); !errors.Is(err, policies.CodeWriteEnded) && !errors.Is(err, policies.CodeNoWriteGrant) {
		w.t.Errorf("%s is written: %v", f, err)
	}
}

// TestNoAnswerDropsARevocation: whatever a storefront says of a revocation, it is kept until the vault has it.
func TestNoAnswerDropsARevocation(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(1)
	w.must(o.GrantWrite(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.secondRoute(false)
	for _, code := range []policies.Code{policies.CodeSuccessionPending, policies.CodeMalformed, policies.CodeNotFound, policies.CodeUnknown} {
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/revocations") && !strings.HasSuffix(r.URL.Path, "/write-ends") {
				next.ServeHTTP(rw, r)
				return
			}
			problem.Write(rw, code)
		})
		if err := o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrNotStopped) || errors.Is(err, ErrNotRotated) || !o.Unstopped() {
			t.Errorf("%s: %v", code, err)
		}
		if err := o.EndWrite(ctx, acme.ID(), nil); !errors.Is(err, ErrNotStopped) {
			t.Errorf("%s: %v", code, err)
		}
	}
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.Sync(ctx))
	w.wantRefusal(acme, o, "own/f0", policies.CodeRevoked)
	w.wantNoWriter(o, acme, "own/f0")
}

// TestStopOfEverything: who stops a reader altogether stops it for what waits to be granted too, and for what another device granted.
func TestStopOfEverything(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, globex := w.household(2)
	more := []policies.Field{"own/f1"}
	w.lost("/grants", false)
	if err := o.Grant(ctx, globex.ID(), more, GrantOptions{}); err == nil {
		t.Fatal("it was not lost")
	}
	w.hostile(nil)
	out, err := o.Stop(ctx, globex.ID(), nil)
	w.must(err)
	w.must(o.Sync(ctx))
	w.wantGranted(o, globex, map[policies.Field]string{})
	w.wantRefusal(globex, o, "own/f0", policies.CodeRevoked)
	w.wantRefusal(globex, o, "own/f1", policies.CodeNoGrant)
	if len(out.Fields) != 1 {
		t.Errorf("stopped: %v", out.Fields)
	}

	w.must(o.Set(ctx, set("own/f2", "value 2")))
	other := reopen(m.clone(), w)
	w.must(other.Grant(ctx, acme.ID(), []policies.Field{"own/f2"}, GrantOptions{}))
	out, err = o.Stop(ctx, acme.ID(), nil)
	w.must(err)
	w.wantGranted(o, acme, map[policies.Field]string{})
	w.wantRefusal(acme, o, "own/f2", policies.CodeRevoked)
	if len(out.Fields) != 3 || len(o.state.Mail.Stops) != 0 {
		t.Errorf("stopped: %v, to be told %v", out.Fields, o.state.Mail.Stops)
	}

	// By a device that knows of nothing, and cannot ask: it is kept, and told once it is done.
	other = reopen(m.clone(), w)
	w.must(o.Grant(ctx, acme.ID(), more, GrantOptions{}))
	w.silent("/chain")
	if _, err := other.Stop(ctx, acme.ID(), nil); !errors.Is(err, ErrNotStopped) {
		t.Errorf("stopped without having seen what: %v", err)
	}
	w.hostile(nil)
	_, err = other.Receive(ctx)
	w.must(err)
	w.wantRefusal(acme, o, "own/f1", policies.CodeRevoked)
	if len(other.state.Mail.Stops) != 0 {
		t.Errorf("to be told %v", other.state.Mail.Stops)
	}
}

// TestRestUndoesNothing: what is left of a grant that was revoked in part while its outcome was unknown is what it was, granted anew to newer keys or besides what somebody
// writes, and no more than that.
func TestRestUndoesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	both, first, second := []policies.Field{"own/f0", "own/f1"}, []policies.Field{"own/f0"}, []policies.Field{"own/f1"}
	for what, begin := range map[string]func(*Owner, *Reader, *Reader) error{
		"newer keys": func(o *Owner, acme, _ *Reader) error {
			w.must(acme.Replace(ctx, stolen(), keep(new([]byte))))
			return o.Sync(ctx)
		},
		"a writer": func(o *Owner, _, globex *Reader) error { return o.GrantWrite(ctx, globex.ID(), both, GrantOptions{}) },
	} {
		for _, narrower := range []bool{false, true} {
			o, m, acme, globex := w.household(2)
			other := reopen(m.clone(), w)
			w.lost("/grants", false)
			if err := begin(o, acme, globex); err == nil {
				t.Fatalf("%s: it was not lost", what)
			}
			w.hostile(nil)
			want := map[policies.Field]string{}
			if narrower {
				w.must(other.Grant(ctx, acme.ID(), second, GrantOptions{Purpose: "narrower"}))
				want["own/f1"] = "narrower"
			} else {
				w.must(other.Revoke(ctx, acme.ID(), second, RevokeOptions{}))
			}
			w.must(o.Revoke(ctx, acme.ID(), first, RevokeOptions{}))
			w.must(o.Sync(ctx))
			w.wantGranted(o, acme, want)
			w.wantRefusal(acme, o, "own/f0", policies.CodeRevoked)
		}
	}
}

// TestFollowingUndoesNothing: who writes a field writes on after a rotation, and with newer keys, only as far as the owner still wants it when the turn of that comes.
func TestFollowingUndoesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	phone := []policies.Field{"phone.mobile"}
	for what, begin := range map[string]func(*Owner, *Reader) error{
		"rotation": func(o *Owner, _ *Reader) error { return o.Rotate(ctx, phone...) },
		"newer keys": func(o *Owner, bank *Reader) error {
			w.must(bank.Replace(ctx, stolen(), keep(new([]byte))))
			return o.Sync(ctx)
		},
	} {
		for _, narrower := range []bool{false, true} {
			o, m, _, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
			other := reopen(m.clone(), w)
			w.lost("/write-grants", false)
			if err := begin(o, bank); err == nil {
				t.Fatalf("%s: it was not lost", what)
			}
			w.hostile(nil)
			if narrower {
				w.must(other.GrantWrite(ctx, bank.ID(), phone, GrantOptions{Purpose: "narrower", Duration: time.Hour}))
			} else {
				w.must(other.EndWrite(ctx, bank.ID(), phone))
			}
			w.must(o.Sync(ctx))
			w.must(other.Sync(ctx))
			for _, d := range []*Owner{o, other} {
				in := d.Writers(false)
				if narrower && (len(in) != 1 || in[0].Purpose != "narrower") || !narrower && len(in) != 0 {
					t.Errorf("%s: in force are %+v", what, in)
				}
			}
			if !narrower {
				w.wantNoWriter(o, bank, phone[0])
			}
		}
	}
}

// TestTakingBackUndoesNothing: an answer whose grant is refused gives the source back what it could write before, unless another device ended that meanwhile: before the
// answer was carried out, or after.
func TestTakingBackUndoesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	fields := []policies.Field{"income.net", "job.since"}
	for _, passes := range []int{0, 1} { // permissions to write that arrive before another device ends them all
		zoe, employer, bank := w.three()
		w.must(zoe.GrantWrite(ctx, employer.ID(), fields, GrantOptions{Purpose: "payroll"}))
		c, err := bank.Specify(ctx, zoe.ID(), policies.IdentityID(employer.ID()), loan())
		w.must(err)
		w.looks(zoe, 1)
		other := reopen(zoe.store.(*memory).clone(), w)
		writes, away := 0, true
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			switch {
			case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/write-grants"):
				if writes++; away && writes > passes {
					http.Error(rw, "silence", http.StatusBadGateway)
					return
				}
			case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/grants"):
				problem.Write(rw, policies.CodeGuardrail)
				return
			}
			next.ServeHTTP(rw, r)
		})
		if _, err := zoe.Answer(ctx, c.ID.String()[:8], fields, ""); err == nil || writes <= passes {
			t.Fatalf("it was not cut off: %v", err)
		}
		away = false
		w.must(other.EndWrite(ctx, employer.ID(), nil))
		for range 2 { // the first one may find that the grant is refused
			_, err = zoe.Receive(ctx)
		}
		w.must(err)
		w.hostile(nil)
		if in := zoe.Writers(false); len(in) != 0 {
			t.Errorf("in force are %+v", in)
		}
		for _, f := range fields {
			w.wantNoWriter(zoe, employer, f)
		}
	}
}

// TestTheNewestTermsCount: a device was lost after it granted anew for a shorter time, and before the older grants ended. When the time is over another device gives nobody
// the older terms again.
func TestTheNewestTermsCount(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	other := reopen(m.clone(), w)
	w.secondRoute(false)
	short := GrantOptions{Purpose: "short", Duration: 2 * time.Second}
	w.lost("/write-ends", false)
	if err := o.GrantWrite(ctx, bank.ID(), phone, short); err == nil {
		t.Fatal("the older one ended")
	}
	lost := reopen(m.clone(), w)
	lost.state.Tasks = nil
	w.lost("/revocations", false)
	if err := lost.Grant(ctx, acme.ID(), phone, short); err == nil {
		t.Fatal("the older one ended")
	}
	w.hostile(nil)
	w.secondRoute(true)
	time.Sleep(2 * time.Second)
	w.must(other.Rotate(ctx, phone...))
	w.wantGranted(other, acme, map[policies.Field]string{"email.home": DefaultPurpose})
	if v := w.read(acme, o, phone[0]); v.Err == nil {
		t.Errorf("%q is read", v.Bytes)
	}
	w.wantNoWriter(o, bank, phone[0])
}

// TestGivenUpIsNotGrantedAnew: what a reader gave up since this device last asked it gets by nothing that the person did not ask for: newer keys, a rotation, a writer.
func TestGivenUpIsNotGrantedAnew(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	second := []policies.Field{"own/f1"}
	without := map[policies.Field]string{"own/f0": DefaultPurpose}
	o, _, acme, globex := w.household(2)
	_, err := acme.GiveUp(ctx, o.ID(), second...)
	w.must(err)
	w.must(acme.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(o.Grant(ctx, globex.ID(), second, GrantOptions{}))
	w.must(o.Grant(ctx, acme.ID(), []policies.Field{"own/f0"}, GrantOptions{}))
	w.wantGranted(o, acme, without)

	for what, begin := range map[string]func(*Owner, *Reader) error{
		"rotation": func(o *Owner, _ *Reader) error { return o.Rotate(ctx, second...) },
		"a writer": func(o *Owner, globex *Reader) error { return o.GrantWrite(ctx, globex.ID(), second, GrantOptions{}) },
	} {
		o, _, acme, globex := w.household(2)
		w.lost("/grants", false)
		if err := begin(o, globex); err == nil {
			t.Fatalf("%s: it was not lost", what)
		}
		w.hostile(nil)
		_, err := acme.GiveUp(ctx, o.ID(), second...)
		w.must(err)
		w.must(o.Sync(ctx))
		w.wantGranted(o, acme, without)
		if v := w.read(acme, o, second[0]); v.Err == nil {
			t.Errorf("%s: %q is read", what, v.Bytes)
		}
	}
}

// TestCancelledGrantThatIsDenied: a storefront passed a grant on, says that it did not, and shows nothing of it. Who is told that the reader is stopped is told the truth.
func TestCancelledGrantThatIsDenied(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, _, globex := w.household(2)
	w.lost("/grants", true)
	if err := o.Grant(ctx, globex.ID(), []policies.Field{"own/f1"}, GrantOptions{}); err == nil {
		t.Fatal("it was not lost")
	}
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/grants"):
			problem.Write(rw, policies.CodeMalformed)
		case strings.HasSuffix(r.URL.Path, "/chain"):
			rw.Write([]byte("{}"))
		default:
			next.ServeHTTP(rw, r)
		}
	})
	err := o.Revoke(ctx, globex.ID(), []policies.Field{"own/f1"}, RevokeOptions{})
	w.hostile(nil)
	if err == nil || !errors.Is(err, ErrNotStopped) {
		w.wantRefusal(globex, o, "own/f1", policies.CodeRevoked)
	}
	w.must(o.Sync(ctx))
	w.wantRefusal(globex, o, "own/f1", policies.CodeRevoked)
	w.wantRead(globex, o, "own/f0", "value 0")
	w.wantGranted(o, globex, map[policies.Field]string{"own/f0": DefaultPurpose})
}

// TestCancelledGrantThatIsDeniedLater: the storefront passed a grant on and does not say so; then this device gives up the document that it sent, because the storefront says that
// another one came first, or because another device put new keys in force. That is no proof that it is not in force, and who is told that the reader is stopped is told the truth.
func TestCancelledGrantThatIsDeniedLater(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	field := []policies.Field{"own/f1"}
	for _, replaced := range []bool{false, true} {
		for _, second := range []bool{false, true} { // whether there is a second route
			o, _, _, globex := w.household(2)
			var other *Owner
			if replaced {
				var backup []byte
				w.must(o.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(&backup)))
				restored, err := RestoreOwner(new(memory), backup, Options{})
				w.must(err)
				w.must(restored.Sync(ctx))
				other = restored
			}
			w.lost("/grants", true)
			if err := o.Grant(ctx, globex.ID(), field, GrantOptions{}); err == nil {
				t.Fatal("it was not lost")
			}
			w.hostile(nil)
			if replaced { // it takes 72 hours, or the recovery key
				other.state.Replacing.Authority = bytes.Clone(other.state.Recovery)
				other.state.Tasks = append(other.state.Tasks, task{Kind: taskSucceed, Stroke: policies.NewDocumentID()})
				w.must(other.run(ctx))
			}
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/grants") && !replaced:
					problem.Write(rw, policies.CodeChain)
				case strings.HasSuffix(r.URL.Path, "/chain"):
					rw.Write([]byte("{}"))
				default:
					next.ServeHTTP(rw, r)
				}
			})
			owners := o.wire.owners
			if !second {
				o.wire.owners = nil
			}
			if !replaced {
				_ = o.Sync(ctx)
			}
			err := o.Revoke(ctx, globex.ID(), field, RevokeOptions{})
			w.hostile(nil)
			if err == nil || !errors.Is(err, ErrNotStopped) {
				w.wantRefusal(globex, o, field[0], policies.CodeRevoked)
			}
			o.wire.owners = owners
			w.must(o.Sync(ctx))
			w.wantRefusal(globex, o, field[0], policies.CodeRevoked)
			w.wantRead(globex, o, "own/f0", "value 0")
			w.wantGranted(o, globex, map[policies.Field]string{"own/f0": DefaultPurpose})
			if t.Failed() || o.Unstopped() {
				t.Errorf("replaced %t, second route %t: the revocation said %v", replaced, second, err)
			}
		}
	}
}

// TestRevokingWhatIsHidden: a storefront hides from a device what another one granted. Where the vault itself can be asked, nobody is told that there is nothing to revoke; a revocation that
// waited ends it too.
func TestRevokingWhatIsHidden(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	field := []policies.Field{"own/f1"}
	for _, waits := range []bool{false, true} {
		o, m, _, globex := w.household(2)
		other := reopen(m.clone(), w)
		w.must(other.Grant(ctx, globex.ID(), field, GrantOptions{}))
		if waits {
			w.silent("/")
			if err := o.Revoke(ctx, globex.ID(), field, RevokeOptions{}); !errors.Is(err, ErrNotStopped) {
				t.Errorf("revoked while nobody could be reached: %v", err)
			}
		}
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/chain") {
				rw.Write([]byte("{}"))
				return
			}
			next.ServeHTTP(rw, r)
		})
		if waits {
			_ = o.Finish(ctx)
		} else if err := o.Revoke(ctx, globex.ID(), field, RevokeOptions{}); errors.Is(err, ErrNotStopped) || errors.Is(err, policies.CodeNoGrant) {
			t.Errorf("revoked what is hidden: %v", err)
		}
		w.hostile(nil)
		w.wantRefusal(globex, o, field[0], policies.CodeRevoked)
		w.must(o.Sync(ctx))
		w.wantGranted(o, globex, map[policies.Field]string{"own/f0": DefaultPurpose})
	}
}

// TestEndWriteAfterALostGrant: a permission to write whose outcome is unknown, because it did not arrive or its answer was lost, is none any more once the person ended it.
func TestEndWriteAfterALostGrant(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	phone, mail := policies.Field("phone.mobile"), policies.Field("email.home")
	for _, arrives := range []bool{false, true} {
		for _, had := range []bool{false, true} {
			for _, away := range []bool{false, true} {
				o, m, _, bank, _ := w.clinic()
				if had {
					w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{phone}, GrantOptions{}))
				}
				w.lost("/write-grants", arrives)
				if err := o.GrantWrite(ctx, bank.ID(), []policies.Field{mail, phone}, GrantOptions{Purpose: "again"}); err == nil {
					t.Fatal("it was not lost")
				}
				w.hostile(nil)
				if away {
					w.silent("/")
					w.secondRoute(false)
					if err := o.EndWrite(ctx, bank.ID(), []policies.Field{phone}); !errors.Is(err, ErrNotStopped) {
						t.Errorf("ended while nobody could be reached: %v", err)
					}
					w.hostile(nil)
					w.secondRoute(true)
					o = reopen(m, w)
				} else {
					w.must(o.EndWrite(ctx, bank.ID(), []policies.Field{phone}))
					w.wantNoWriter(o, bank, phone)
				}
				w.must(o.Sync(ctx))
				w.wantNoWriter(o, bank, phone)
				w.must(bank.Write(ctx, o.ID(), set(mail, "of the bank")))
				if in := o.Writers(false); len(in) != 1 || in[0].Field != mail || in[0].Purpose != "again" {
					t.Errorf("arrives %t, had one %t, away %t: in force are %+v", arrives, had, away, in)
				}
			}
		}
	}
}

// TestEndWriteOfWhatWasNotSeen: another device let somebody write what this one has not heard of, and the storefront is silent. The end is kept until that is ended too.
func TestEndWriteOfWhatWasNotSeen(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	phone := []policies.Field{"phone.mobile"}
	for _, had := range []bool{false, true} {
		o, m, _, bank, _ := w.clinic()
		if had {
			w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
		}
		other := reopen(m.clone(), w)
		w.must(other.GrantWrite(ctx, bank.ID(), phone, GrantOptions{Purpose: "newer"}))
		w.silent("/")
		if err := o.EndWrite(ctx, bank.ID(), nil); !errors.Is(err, ErrNotStopped) || !o.Unstopped() {
			t.Errorf("ended without having seen what: %v", err)
		}
		w.hostile(nil)
		w.must(o.Sync(ctx))
		w.wantNoWriter(o, bank, phone[0])
		if in := o.Writers(false); len(in) != 0 || o.Unstopped() {
			t.Errorf("in force are %+v", in)
		}
	}
}

// TestCancelWhatIsNotAnnouncedYet: an announcement that did not arrive, or whose answer was lost, is taken back as one that is in force is.
func TestCancelWhatIsNotAnnouncedYet(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, arrives := range []bool{false, true} {
		o, _, _, _ := w.household(1)
		w.lost("/successions", arrives)
		w.secondRoute(false)
		if err := o.Replace(ctx, ReplaceOptions{Reason: succession.Planned, Announce: true}, keep(new([]byte))); err == nil {
			t.Fatal("it was not lost")
		}
		w.hostile(nil)
		w.secondRoute(true)
		w.must(o.CancelReplacement(ctx))
		w.must(o.Sync(ctx))
		if at, _ := o.Announced(); !at.IsZero() || o.state.Replacing != nil {
			t.Errorf("arrives %t: it is announced", arrives)
		}
		if err := o.CancelReplacement(ctx); !errors.Is(err, ErrNotAnnounced) {
			t.Errorf("arrives %t: taken back twice: %v", arrives, err)
		}
	}
}

// TestTakingBackOnlyWhatWasMeant: a device that could not send that it takes an announcement back does not take back the next one, which the person wanted.
func TestTakingBackOnlyWhatWasMeant(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, _, _ := w.household(1)
	announce := ReplaceOptions{Reason: succession.Planned, Announce: true}
	w.must(o.Replace(ctx, announce, keep(new([]byte))))
	other := reopen(m.clone(), w)
	w.lost("/successions", false)
	w.secondRoute(false)
	if err := other.CancelReplacement(ctx); err == nil {
		t.Fatal("it was not lost")
	}
	w.hostile(nil)
	w.secondRoute(true)
	w.must(o.CancelReplacement(ctx))
	w.must(o.Replace(ctx, announce, keep(new([]byte))))
	w.must(other.Sync(ctx))
	w.must(o.Sync(ctx))
	if _, own := o.Announced(); !own || o.state.Replacing == nil {
		t.Error("it was taken back")
	}
}

// TestResealingUndoesNothing: a device seals everything anew after it replaced its keys, and is cut off. What another one, restored from the backup, sets and removes meanwhile stays so.
func TestResealingUndoesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(3)
	var backup []byte
	manifests := 0
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/manifests") {
			if manifests++; manifests > 1 { // the first one moves the fields to new keys
				http.Error(rw, "silence", http.StatusBadGateway)
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
	if err := o.Replace(ctx, stolen(), keep(&backup)); err == nil || manifests < 2 {
		t.Fatalf("it was not cut off: %v", err)
	}
	w.hostile(nil)
	fresh, err := RestoreOwner(new(memory), backup, Options{})
	w.must(err)
	w.must(fresh.Sync(ctx))
	w.must(fresh.Set(ctx, set("own/f0", "later")))
	w.must(fresh.Remove(ctx, "own/f1"))
	w.must(o.Sync(ctx))
	w.must(fresh.Sync(ctx))
	w.wantRead(acme, o, "own/f0", "later")
	w.wantRead(acme, o, "own/f2", "value 2")
	for _, d := range []*Owner{o, fresh} {
		if got, err := d.Get(ctx, "own/f0"); err != nil || string(got) != "later" {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := d.Get(ctx, "own/f1"); !errors.Is(err, ErrNoField) {
			t.Errorf("what was removed is %q, %v", got, err)
		}
	}
}

// TestWhatALostDeviceDidNotEnd: a device was lost after it granted anew under narrower terms, and before the older grants ended. Another one, or one that is restored from a
// backup, ends them when it next looks.
func TestWhatALostDeviceDidNotEnd(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	var backup []byte
	_, err := o.Backup(false, keep(&backup))
	w.must(err)
	other := reopen(m.clone(), w)
	for i, next := range []func() *Owner{
		func() *Owner { return other },
		func() *Owner { fresh, err := RestoreOwner(new(memory), backup, Options{}); w.must(err); return fresh },
	} {
		narrower := GrantOptions{Purpose: "narrower", Duration: time.Duration(i+1) * time.Hour}
		lost := reopen(m.clone(), w)
		w.must(lost.Sync(ctx))
		w.secondRoute(false)
		w.lost("/write-ends", false)
		if err := lost.GrantWrite(ctx, bank.ID(), phone, narrower); err == nil {
			t.Fatal("the older one ended")
		}
		lost.state.Tasks = nil
		w.lost("/revocations", false)
		if err := lost.Grant(ctx, acme.ID(), phone, narrower); err == nil {
			t.Fatal("the older one ended")
		}
		w.hostile(nil)
		w.secondRoute(true)
		d := next()
		w.must(d.Sync(ctx))
		w.wantGranted(d, acme, map[policies.Field]string{"email.home": DefaultPurpose, "phone.mobile": "narrower"})
		if in := d.Writers(false); len(in) != 1 || in[0].Purpose != "narrower" {
			t.Errorf("may write: %+v", in)
		}
		seq := d.state.Known.Seq
		w.must(d.Sync(ctx))
		if d.state.Known.Seq != seq {
			t.Error("a second look ended something again")
		}
		w.wantRead(acme, o, phone[0], "one")
	}
}

// TestStoppedBeforeItWasAnswered: of an answer whose grant did not arrive the person stopped a part. The reader is told what is left, if that is an answer; if not, nothing is
// left of it, and to deny the request is to deny it.
func TestStoppedBeforeItWasAnswered(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	for _, required := range []bool{false, true} {
		o, _, r, _ := w.met()
		ask := delivery()
		for i := range ask.Fields {
			ask.Fields[i].Required = required
		}
		c := w.asks(r, o, ask)
		w.looks(o, 1)
		w.lost("/grants", false)
		if _, err := o.Answer(ctx, c.ID.String(), []policies.Field{"address.home", "phone.mobile"}, ""); err == nil {
			t.Fatal("it was not lost")
		}
		w.hostile(nil)
		if _, err := o.Stop(ctx, r.ID(), []policies.Field{"phone.mobile"}); err != nil {
			t.Fatal(err)
		}
		_, err := o.Receive(ctx)
		w.must(err)
		if !required {
			_, err := r.Receive(ctx, 0)
			w.must(err)
			w.wantStatus(r, c.ID, consent.Partly, "address.home")
			w.wantGranted(o, r, map[policies.Field]string{"address.home": ask.Purpose.Text})
			continue
		}
		w.wantGranted(o, r, map[policies.Field]string{})
		_, err = o.Answer(ctx, c.ID.String(), nil, "")
		w.must(err)
		_, err = r.Receive(ctx, 0)
		w.must(err)
		w.wantStatus(r, c.ID, consent.Denied)
		for _, f := range []policies.Field{"address.home", "phone.mobile"} {
			if v := w.read(r, o, f); v.Err == nil {
				t.Errorf("%s is read: %q", f, v.Bytes)
			}
		}
	}
}

// TestAStorefrontThatRefusesAReplacement: a storefront that refuses in the vault's name does not keep a person from replacing their keys while the second route is there.
func TestAStorefrontThatRefusesAReplacement(t *testing.T) {
	for _, code := range []policies.Code{policies.CodeSuccessionPending, policies.CodeMalformed} {
		ctx, w := t.Context(), newWorld(t)
		o, _, acme, _ := w.household(1)
		w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
			if q.Method == http.MethodPost && strings.HasSuffix(q.URL.Path, "/successions") {
				problem.Write(rw, code)
				return
			}
			next.ServeHTTP(rw, q)
		})
		// Told by the vault alone, the storefront does not know the new keys, and nothing that follows goes through it.
		_ = o.Replace(ctx, stolen(), keep(new([]byte)))
		if o.state.Replacing != nil {
			t.Errorf("%s: the replacement is not in force", code)
		}
		w.hostile(nil)
		w.must(o.Sync(ctx))
		w.wantRead(acme, o, "own/f0", "value 0")
	}
}

// TestARefusedAnswerIsNone: an answer whose grant the vault refused is no consent, although the reader reads the same fields by an older grant. The request is open again.
func TestARefusedAnswerIsNone(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, r, _ := w.met()
	fields := []policies.Field{"address.home", "phone.mobile"}
	w.must(o.Grant(ctx, r.ID(), fields, GrantOptions{Purpose: "older"}))
	c := w.asks(r, o, delivery())
	w.looks(o, 1)
	w.hostile(func(rw http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.HasSuffix(q.URL.Path, "/grants") && q.Method == http.MethodPost {
			problem.Write(rw, policies.CodeGuardrail)
			return
		}
		next.ServeHTTP(rw, q)
	})
	if _, err := o.Answer(ctx, c.ID.String(), fields, ""); !errors.Is(err, policies.CodeGuardrail) {
		t.Fatalf("it was not refused: %v", err)
	}
	w.hostile(nil)
	_, err := o.Receive(ctx)
	w.must(err)
	if in := o.Inbox(false); len(in) != 1 || in[0].Status != consent.Pending || in[0].Waits {
		t.Errorf("the inbox holds %+v", in)
	}
	_, err = r.Receive(ctx, 0)
	w.must(err)
	w.wantStatus(r, c.ID, consent.Pending)
	w.wantGranted(o, r, map[policies.Field]string{"address.home": "older", "phone.mobile": "older"})
}

// TestTheLaterDecisionCounts: what waits on one device is not given once the person decided otherwise on another, later. They are told once; what concerns something else, was
// decided before, or is no decision, changes nothing.
func TestTheLaterDecisionCounts(t *testing.T) {
	phone, mail := policies.Field("phone.mobile"), policies.Field("email.home")
	both := []policies.Field{mail, phone}
	for name, c := range map[string]struct {
		elsewhere func(*world, *Owner, *Reader) error // on the other device, while the wish waits
		first     bool                                // it was decided before the wish, by the clocks
		want      map[policies.Field]string           // what the reader may read in the end, by purpose
		told      bool
	}{
		"stopped": {
			elsewhere: func(w *world, o *Owner, acme *Reader) error {
				return o.Revoke(w.t.Context(), acme.ID(), []policies.Field{phone}, RevokeOptions{})
			},
			want: map[policies.Field]string{mail: "wish"}, told: true,
		},
		"stopped all": {
			elsewhere: func(w *world, o *Owner, acme *Reader) error {
				return o.Revoke(w.t.Context(), acme.ID(), nil, RevokeOptions{KeepEpoch: true})
			},
			want: map[policies.Field]string{}, told: true,
		},
		"narrowed": {
			elsewhere: func(w *world, o *Owner, acme *Reader) error {
				return o.Grant(w.t.Context(), acme.ID(), []policies.Field{phone}, GrantOptions{Purpose: "narrower", Duration: time.Hour})
			},
			want: map[policies.Field]string{mail: "wish", phone: "narrower"}, told: true,
		},
		"stopped before": {
			elsewhere: func(w *world, o *Owner, acme *Reader) error {
				return o.Revoke(w.t.Context(), acme.ID(), []policies.Field{phone}, RevokeOptions{})
			},
			first: true, want: map[policies.Field]string{mail: "wish", phone: "wish"},
		},
		"moved only": {
			elsewhere: func(w *world, o *Owner, _ *Reader) error { return o.Rotate(w.t.Context(), phone) },
			want:      map[policies.Field]string{mail: "wish", phone: "wish"},
		},
		"another reader": {
			elsewhere: func(w *world, o *Owner, _ *Reader) error {
				later, _ := w.reader("Later")
				w.connect(o, later, "later")
				if err := o.Grant(w.t.Context(), later.ID(), both, GrantOptions{}); err != nil {
					return err
				}
				return o.Revoke(w.t.Context(), later.ID(), nil, RevokeOptions{})
			},
			want: map[policies.Field]string{mail: "wish", phone: "wish"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, m, acme, _, _ := w.clinic()
			other := reopen(m.clone(), w)
			w.silent("/grants")
			w.secondRoute(false)
			if err := o.Grant(ctx, acme.ID(), both, GrantOptions{Purpose: "wish"}); err == nil {
				t.Fatal("it did not wait")
			}
			w.hostile(nil)
			w.secondRoute(true)
			o.age(c.first)
			w.must(c.elsewhere(w, other, acme))
			if err := o.Sync(ctx); errors.Is(err, ErrOvertaken) != c.told || !c.told && err != nil {
				t.Errorf("told: %v", err)
			}
			w.must(o.Sync(ctx))
			w.must(other.Sync(ctx))
			for _, d := range []*Owner{o, other} {
				w.wantGranted(d, acme, c.want)
			}
			for _, f := range both {
				if v := w.read(acme, o, f); (v.Err == nil) != (c.want[f] != "") {
					t.Errorf("%s: read %q, %v", f, v.Bytes, v.Err)
				}
			}
		})
	}
}

// age makes what waits be wished ten seconds ago, or, as if what follows had been decided before it, in ten seconds.
func (o *Owner) age(future bool) {
	for i := range o.state.Tasks {
		if t := &o.state.Tasks[i]; t.wished() && future {
			t.Wished += 10
		} else if t.wished() {
			t.Wished -= 10
		}
	}
}

// TestTheLaterDecisionOnWriters: the same for what somebody may write.
func TestTheLaterDecisionOnWriters(t *testing.T) {
	phone := []policies.Field{"phone.mobile"}
	for name, c := range map[string]struct {
		elsewhere func(*world, *Owner, *Reader) error
		first     bool
		want      string // the purpose
	}{
		"ended": {elsewhere: func(w *world, o *Owner, bank *Reader) error { return o.EndWrite(w.t.Context(), bank.ID(), phone) }},
		"ended before": {
			elsewhere: func(w *world, o *Owner, bank *Reader) error { return o.EndWrite(w.t.Context(), bank.ID(), phone) },
			first:     true, want: "wish",
		},
		"on other terms": {
			elsewhere: func(w *world, o *Owner, bank *Reader) error {
				return o.GrantWrite(w.t.Context(), bank.ID(), phone, GrantOptions{Purpose: "narrower", Duration: time.Hour})
			},
			want: "narrower",
		},
		"moved only": {
			elsewhere: func(w *world, o *Owner, _ *Reader) error { return o.Rotate(w.t.Context(), phone...) },
			want:      "wish",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := t.Context(), newWorld(t)
			o, m, acme, bank, _ := w.clinic()
			w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{Purpose: "before"}))
			other := reopen(m.clone(), w)
			w.silent("rants")
			w.secondRoute(false)
			if err := o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{Purpose: "wish"}); err == nil {
				t.Fatal("it did not wait")
			}
			w.hostile(nil)
			w.secondRoute(true)
			o.age(c.first)
			w.must(c.elsewhere(w, other, bank))
			if err := o.Sync(ctx); errors.Is(err, ErrOvertaken) != (c.want != "wish") || c.want == "wish" && err != nil {
				t.Errorf("told: %v", err)
			}
			w.must(o.Sync(ctx))
			w.must(other.Sync(ctx))
			for _, d := range []*Owner{o, other} {
				got := ""
				for _, g := range d.Writers(false) {
					got += g.Purpose
				}
				if got != c.want {
					t.Errorf("may write for %q, want %q", got, c.want)
				}
			}
			if c.want == "" {
				w.wantNoWriter(o, bank, phone[0])
				w.wantRead(acme, o, phone[0], "one")
				return
			}
			w.must(bank.Write(ctx, o.ID(), set(phone[0], "theirs")))
			w.wantBy(acme, o, phone[0], "theirs", author(bank))
		})
	}
}

// TestResealingHidesNothing: what somebody wrote since the device last looked, up to the moment in which it seals its own values anew, stays the newest.
func TestResealingHidesNothing(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	w.must(o.GrantWrite(ctx, bank.ID(), []policies.Field{"phone.mobile"}, GrantOptions{}))
	var written, ended atomic.Bool
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(rw, r)
		if strings.HasSuffix(r.URL.Path, "/write-ends") {
			ended.Store(true)
		}
		if !written.Load() && ended.Load() && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/revocations") { // the field has moved, and is not sealed anew yet
			written.Store(true)
			w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "theirs")))
		}
	})
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	w.hostile(nil)
	if !written.Load() {
		t.Fatal("nothing was written meanwhile")
	}
	w.wantBy(acme, o, "phone.mobile", "theirs", author(bank))
}

// TestRotationRefused: a revocation whose rotation is refused for good does not say that it is tried again.
func TestRotationRefused(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, _ := w.household(1)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/grants") {
			problem.Write(rw, problem.New(policies.CodeCustody, "no longer"))
			return
		}
		next.ServeHTTP(rw, r)
	})
	if err := o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); !errors.Is(err, ErrRotationRefused) || !errors.Is(err, ErrNotRotated) || !errors.Is(err, policies.CodeCustody) {
		t.Fatal(err)
	}
	w.hostile(nil)
	w.must(o.Sync(ctx))
	w.wantRefusal(acme, o, "own/f0", policies.CodeRevoked)

	o, _, acme, _ = w.household(1)
	w.lost("/grants", false)
	if err := o.Revoke(ctx, acme.ID(), nil, RevokeOptions{}); errors.Is(err, ErrRotationRefused) || !errors.Is(err, ErrNotRotated) {
		t.Fatal(err)
	}
}

// TestARevocationIsToldAlone: that something which waited was not given is told by the next operation, and does not make a revocation look as if it had failed.
func TestARevocationIsToldAlone(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m, acme, globex := w.household(1)
	other := reopen(m.clone(), w)
	w.overtake(o, other, acme)
	w.must(o.Revoke(ctx, globex.ID(), nil, RevokeOptions{}))
	o.Close()
	o = reopen(m, w)
	if err := o.Sync(ctx); !errors.Is(err, ErrOvertaken) {
		t.Errorf("told: %v", err)
	}
	w.must(o.Sync(ctx))
	w.wantGranted(o, acme, map[policies.Field]string{})
}

// TestRevokingWhileOthersPublish: another device publishes before a revocation comes to its place, and again before this one asks what came first, and then the storefront does not answer any more. That
// the refusal is older than what this device has learnt since is no fault of the vault's.
func TestRevokingWhileOthersPublish(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, m := w.owner()
	r, _ := w.reader("Acme")
	w.connect(o, r, "acme")
	w.must(o.Set(ctx, set("own/a", "a"), set("own/b", "b")))
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"own/a"}, GrantOptions{}))
	other := reopen(m.clone(), w)
	o = reopen(m, w)
	began, mute := false, false
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case !began && strings.HasSuffix(r.URL.Path, "/revocations"):
			began = true
			w.must(other.Set(ctx, set("own/b", "bb")))
			next.ServeHTTP(rw, r)
			w.must(other.Set(ctx, set("own/b", "bbb")))
			mute = true
		case mute && (strings.HasSuffix(r.URL.Path, "/mirror") || strings.Contains(r.URL.Path, "/items/")):
			http.Error(rw, "silence", http.StatusBadGateway)
		default:
			next.ServeHTTP(rw, r)
		}
	})
	w.must(o.Revoke(ctx, r.ID(), []policies.Field{"own/a"}, RevokeOptions{KeepEpoch: true}))
	w.hostile(nil)
	w.wantRefusal(r, o, "own/a", policies.CodeRevoked)
	w.must(o.Sync(ctx))
	if text, err := o.Get(ctx, "own/b"); err != nil || string(text) != "bbb" {
		t.Errorf("what the other device published: %q, %v", text, err)
	}
}
