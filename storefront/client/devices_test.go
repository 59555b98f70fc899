package client

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/pairing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// meet brings a new device and an owner's together, up to the words.
func (w *world) meet(o *Owner) (d *NewDevice, a *Approval, word string, err error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	d, err = BeginDevice(ctx, o.Network(), Options{})
	w.must(err)
	w.t.Cleanup(d.Close)
	var met sync.WaitGroup
	var meetErr error
	met.Go(func() {
		if word, meetErr = d.Meet(ctx); meetErr != nil {
			cancel()
		}
	})
	a, err = o.MeetDevice(ctx, strings.ToLower(d.Code()))
	if err != nil {
		cancel()
	}
	met.Wait()
	return d, a, word, errors.Join(err, meetErr)
}

// TestSecondDevice: the first device approves, and the second is one like it, but for the recovery key. What either does the other one fetches.
func TestSecondDevice(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n1")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note"}, GrantOptions{}))
	d, a, word, err := w.meet(o)
	w.must(err)
	answer, err := a.Approve(ctx, " "+strings.ToLower(word)+"\n")
	w.must(err)
	if _, err := d.Finish(ctx, word, new(memory)); !errors.Is(err, ErrNotSame) || word == answer {
		t.Errorf("the first word is taken for the second: %v", err)
	}
	store := new(memory)
	second, err := d.Finish(ctx, answer, store)
	w.must(err)
	w.must(second.Sync(ctx))
	if second.ID() != o.ID() || second.state.Recovery != nil || o.state.Recovery == nil || len(second.Contacts()) != 1 {
		t.Error("the second device is not what it should be")
	}
	w.must(second.Set(ctx, set("note", "n2")))
	w.must(o.Sync(ctx))
	w.wantRead(r, o, "note", "n2")
	if len(bytes.TrimSpace(store.state)) == 0 {
		t.Error("nothing was kept")
	}
	// A code that no device shows, and a device to which no other comes.
	if _, err := o.MeetDevice(ctx, "0000-0000"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a code that nobody shows: %v", err)
	}
	lonely, err := BeginDevice(ctx, o.Network(), Options{})
	w.must(err)
	defer lonely.Close()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := lonely.Meet(short); !errors.Is(err, ErrAlone) || !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("nobody came: %v", err)
	}
	// An invitation of one's own.
	if err := o.Accept(ctx, links.Invite{Reader: policies.IdentityID(o.ID())}, "self"); !errors.Is(err, policies.ErrMalformed) || !strings.Contains(err.Error(), "your own") {
		t.Errorf("one's own invitation: %v", err)
	}
}

// TestSecondDeviceOfTwoRoots: the root was replaced, and what a writer wrote is under the one before still, for as long as the writer writes nothing. A device can be added then, and opens that too.
func TestSecondDeviceOfTwoRoots(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, acme, bank, _ := w.clinic()
	phone := []policies.Field{"phone.mobile"}
	w.must(o.GrantWrite(ctx, bank.ID(), phone, GrantOptions{}))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "two")))
	w.must(o.Sync(ctx))
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	if o.former == nil {
		t.Fatal("nothing is under the root before")
	}
	d, a, word, err := w.meet(o)
	w.must(err)
	o.state.Replacing = new(replacement) // begun since they met
	if _, err := a.Approve(ctx, word); !errors.Is(err, policies.CodeSuccessionPending) {
		t.Errorf("in the middle of a replacement: %v", err)
	}
	o.state.Replacing = nil
	answer, err := a.Approve(ctx, word)
	w.must(err)
	second, err := d.Finish(ctx, answer, new(memory))
	w.must(err)
	w.must(second.Sync(ctx))
	var restored *Owner
	_, err = o.Backup(false, func(plain []byte) (err error) {
		restored, err = RestoreOwner(new(memory), plain, Options{})
		return err
	})
	w.must(err)
	w.must(restored.Sync(ctx))
	for i, device := range []*Owner{second, restored} { // what the first device moved to the new root is not moved once more
		if device.state.Known != o.state.Known || len(device.state.Tasks) != 0 {
			t.Errorf("device %d made %d documents", i, device.state.Known.Seq-o.state.Known.Seq)
		}
	}
	if in, err := second.Incoming(ctx); err != nil || len(in) != 1 || string(in[0].Bytes) != "two" {
		t.Errorf("the second device is shown %+v, %v", in, err)
	}
	w.must(second.Set(ctx, set("email.home", "new")))
	w.wantBy(acme, o, "phone.mobile", "two", author(bank))
	w.must(bank.Write(ctx, o.ID(), set("phone.mobile", "three")))
	w.must(second.Sync(ctx))
	if second.former != nil {
		t.Error("the second device keeps the root before")
	}
}

// TestSecondDeviceAttacked: a storefront that takes either device's place makes other words; whichever of them a person types, neither device hands anything over or takes it.
func TestSecondDeviceAttacked(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, _ := w.owner()
	thief, _ := w.owner() // whose profile the storefront would like the new device to use
	w.must(o.Set(ctx, set("note", "n1")))

	// A wrong word: nothing leaves the first device, nor does the right one help afterwards without it.
	d, a, word, err := w.meet(o)
	w.must(err)
	for _, wrong := range []string{"", "0000-0000", d.transcript.Second(), word[:8], word + "0"} {
		if _, err := a.Approve(ctx, wrong); !errors.Is(err, ErrNotSame) {
			t.Errorf("the word %q: %v", wrong, err)
		}
	}
	if err := o.wire.call(ctx, request{method: "GET", path: meetingPath(api.PathDeviceProfile, d.code), out: new(api.DeviceProfile)}); !errors.Is(err, policies.CodeNotFound) {
		t.Errorf("something was handed over: %v", err)
	}

	// The storefront shows the first device a new device of its own making.
	key := pre.NewBlobKey([32]byte{77})
	own := pairing.Opening{Key: key.Public(), Nonce: bytes.Repeat([]byte{7}, pairing.NonceSize)}
	swap := func(part string, body func(code pairing.Code, honest []byte) any) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(rw http.ResponseWriter, rq *http.Request, next http.Handler) {
			if !strings.HasSuffix(rq.URL.Path, part) || rq.Method != "GET" {
				next.ServeHTTP(rw, rq)
				return
			}
			honest := httptest.NewRecorder()
			if next.ServeHTTP(honest, rq); honest.Code != http.StatusOK { // it goes by the order of the parts, so that both devices stay in their meeting
				rw.Header().Set("Content-Type", honest.Header().Get("Content-Type"))
				rw.WriteHeader(honest.Code)
				rw.Write(honest.Body.Bytes())
				return
			}
			code, err := pairing.ParseCode(strings.Split(rq.URL.Path, "/")[3])
			w.must(err)
			b, err := json.Marshal(body(code, honest.Body.Bytes()))
			w.must(err)
			rw.Header().Set("Content-Type", "application/json")
			rw.Write(b)
		}
	}
	both := func(rw http.ResponseWriter, rq *http.Request, next http.Handler) {
		if strings.HasSuffix(rq.URL.Path, "/offer") {
			swap("/offer", func(c pairing.Code, _ []byte) any { return api.DeviceOffer{Commitment: own.Commitment(c)} })(rw, rq, next)
			return
		}
		swap("/opening", func(pairing.Code, []byte) any { return own })(rw, rq, next)
	}
	w.hostile(both)
	_, a, word, err = w.meet(o)
	w.must(err)
	if _, err := a.Approve(ctx, word); !errors.Is(err, ErrNotSame) {
		t.Errorf("a swapped key: %v", err)
	}
	// It has committed to another one than it shows.
	w.hostile(swap("/opening", func(pairing.Code, []byte) any { return own }))
	if _, _, _, err := w.meet(o); !errors.Is(err, ErrUntrue) {
		t.Errorf("a key that was not committed to: %v", err)
	}
	// It answers the new device in the name of another person, or with another nonce.
	for _, change := range []func(*pairing.Answer){
		func(a *pairing.Answer) { a.Owner = thief.ID() }, func(a *pairing.Answer) { a.Nonce = bytes.Repeat([]byte{9}, pairing.NonceSize) },
	} {
		w.hostile(swap("/answer", func(_ pairing.Code, honest []byte) any {
			var answer pairing.Answer
			w.must(json.Unmarshal(honest, &answer))
			change(&answer)
			return answer
		}))
		d, a, word, err = w.meet(o)
		w.must(err)
		if _, err := a.Approve(ctx, word); !errors.Is(err, ErrNotSame) {
			t.Errorf("a swapped answer: %v", err)
		}
		if _, err := d.Finish(ctx, a.transcript.Second(), new(memory)); !errors.Is(err, ErrNotSame) {
			t.Errorf("the new device takes the other meeting's word: %v", err)
		}
	}
	// Both devices agree, and the storefront hands over somebody else's profile, sealed to the right key: it knows that one by then.
	w.hostile(nil)
	d, a, word, err = w.meet(o)
	w.must(err)
	answer, err := a.Approve(ctx, word)
	w.must(err)
	b := thief.state.base.backup(time.Now())
	w.must(b.write(func(profile []byte) error {
		plain, err := json.Marshal(handover{Profile: profile})
		w.must(err)
		sealed, err := pre.SealBlob(d.opening.Key, d.transcript.Info(), plain)
		w.must(err)
		w.hostile(swap("/profile", func(pairing.Code, []byte) any { return api.DeviceProfile{Sealed: sealed} }))
		return nil
	}))
	store := new(memory)
	if _, err := d.Finish(ctx, answer, store); !errors.Is(err, ErrUntrue) || store.state != nil {
		t.Errorf("another person's profile: %v", err)
	}
	// Or what an earlier meeting handed over, to its key or to this one.
	w.hostile(nil)
	earlier := d.transcript
	var old api.DeviceProfile
	w.must(o.wire.call(ctx, request{method: "GET", path: meetingPath(api.PathDeviceProfile, d.code), out: &old}))
	d, a, word, err = w.meet(o)
	w.must(err)
	answer, err = a.Approve(ctx, word)
	w.must(err)
	w.hostile(swap("/profile", func(pairing.Code, []byte) any { return old }))
	if _, err := d.Finish(ctx, answer, store); !errors.Is(err, ErrUntrue) || store.state != nil {
		t.Errorf("an earlier meeting's profile: %v", err)
	}
	mine := o.state.base.backup(time.Now())
	mine.Recovery = nil
	w.must(mine.write(func(profile []byte) error {
		plain, err := json.Marshal(handover{Profile: profile})
		w.must(err)
		old.Sealed, err = pre.SealBlob(d.opening.Key, earlier.Info(), plain)
		return err
	}))
	if _, err := d.Finish(ctx, answer, store); !errors.Is(err, ErrUntrue) || store.state != nil {
		t.Errorf("an earlier meeting's profile, sealed anew: %v", err)
	}
	// The honest one still works.
	w.hostile(nil)
	_, err = d.Finish(ctx, answer, store)
	w.must(err)
}

// FuzzHandover: whatever a device is handed is refused or whole.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"profile":{"format":1},"account":{}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		var h handover
		if envelope.Decode(plain, &h) != nil {
			return
		}
		if b, err := parseBackup(h.Profile, roleOwner); err == nil && b.Role != roleOwner {
			t.Error("another role was taken for an owner")
		}
	})
}
