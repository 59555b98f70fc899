package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
)

// of are the details of all records of a kind.
func (w *world) of(kind evidence.Kind) (all []evidence.Details) {
	for _, record := range w.records() {
		if record.Kind == kind {
			all = append(all, record.Details)
		}
	}
	return all
}

// TestSealingKeyThatStays: the log does not say that a sealing key ends and leave it at that when the token does not destroy it, nor say it again at each try.
func TestSealingKeyThatStays(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 3)
	var tries atomic.Int64
	var willing atomic.Bool
	w.token.hook = func(op string) error {
		if op == "destroy sealing key" && tries.Add(1) > 0 && !willing.Load() {
			return errors.New("refused")
		}
		return nil
	}
	w.token.newSealingKey()
	until(t, "some tries", func() bool { return tries.Load() >= 3 })
	failed := w.of(evidence.EntryFailed)
	if len(failed) != 1 || failed[0].Period != 1 || failed[0].Custody != policies.CustodySealed || failed[0].Note == "" {
		t.Errorf("recorded as failed: %+v", failed)
	}
	sealing := w.of(evidence.EntrySealing)
	if len(sealing) != 1 {
		t.Fatalf("after %d tries %d records of the end", tries.Load(), len(sealing))
	}
	willing.Store(true)
	w.moved(2)
	until(t, "the record of the end", func() bool { return len(w.of(evidence.EntrySealing)) == 2 })
	if last := w.of(evidence.EntrySealing)[1]; last.Period != 1 || !strings.Contains(last.Note, "destroyed at a later try") {
		t.Errorf("recorded %+v", last)
	}
	if n := len(w.of(evidence.EntryFailed)); n != 1 {
		t.Errorf("%d records of failures", n)
	}
	readAll(t, r, asks)
	w.restart(false) // the replay takes these records
	readAll(t, r, asks)
}

// TestDestroyedSaysWhatWasAbsent: of a resident key that somebody hid nobody saw the destruction, and the log does not say that anybody did.
func TestDestroyedSaysWhatWasAbsent(t *testing.T) {
	w := newWorld(t)
	said := new(log)
	w.said = said
	w.restart(true)
	o, r := w.owner(), w.reader()
	o.seal("a", 1, "a")
	o.seal("b", 1, "b")
	o.publish()
	there, hidden := o.grant(r, nil, "a"), o.grant(r, nil, "b")
	o.revoke(there, "a")
	if said.has("was not in the token") {
		t.Error("an alarm without a reason")
	}
	w.token.mu.Lock()
	delete(w.token.keys, keyID(hidden.ID, "b", policies.AuthorID(o.id)))
	w.token.mu.Unlock()
	o.revoke(hidden, "b")
	destroyed := w.of(evidence.EntryDestroyed)
	if len(destroyed) != 2 || destroyed[0].Note != "" || !strings.Contains(destroyed[1].Note, "1 not in the token") {
		t.Errorf("recorded %+v", destroyed)
	}
	if !said.has("was not in the token") || !said.has(hidden.ID.String()) {
		t.Error("the vault's log does not say that the key was not there")
	}
}

// TestRevocationNamesTheLastSealingKey: the token has just wrapped the key under the next sealing key when its revocation comes. The store never gets
// that one, but it was outside the token.
func TestRevocationNamesTheLastSealingKey(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 3)
	once := new(atomic.Bool)
	w.token.hook = func(op string) error {
		if op == "resealed" && once.CompareAndSwap(false, true) {
			asks[1].o.revoke(asks[1].grant, asks[1].field)
		}
		return nil
	}
	w.token.newSealingKey()
	w.moved(2)
	if d := w.of(evidence.EntryDestroyed); len(d) != 1 || d[0].Period != 2 {
		t.Errorf("recorded %+v: a copy under sealing key 2 was made", d)
	}
}

// TestManyKeysThatDoNotUnwrap: if the token opens nothing any more, an operator is to find out why. The older sealing key, and with it every grant, is
// not destroyed over it.
func TestManyKeysThatDoNotUnwrap(t *testing.T) {
	w := sealedWorld(t)
	said := new(log)
	w.said = said
	w.restart(true)
	r := w.reader()
	asks := w.granted(r, fewLost+4)
	var left atomic.Int64 // calls that fail
	left.Store(1 << 40)
	w.token.hook = func(op string) error {
		if op == "reseal" && left.Add(-1) >= 0 {
			return ErrKeyMissing
		}
		return nil
	}
	w.token.newSealingKey()
	until(t, "the mover to despair", func() bool { return said.has("too many to give up") })
	time.Sleep(20 * time.Millisecond)
	if !slices.Equal(w.token.periods(), []uint32{1, 2}) {
		t.Fatalf("sealing keys %v are left", w.token.periods())
	}
	readAll(t, r, asks)
	left.Store(10) // it recovers in the middle of a round
	w.moved(2)
	readAll(t, r, asks)
}

// TestFileCutShort: somebody cuts the file of a running vault. The keys behind the cut are missing; the mover says so, gives them up and comes to an end.
func TestFileCutShort(t *testing.T) {
	for _, left := range []int{0, 2} {
		w := sealedWorld(t)
		said := new(log)
		w.said = said
		w.restart(true)
		r := w.reader()
		asks := w.granted(r, 4)
		must(t, os.Truncate(w.keysFile(), int64(left)*512+min(int64(left), 1)*100))
		w.token.newSealingKey()
		until(t, "the move", func() bool { return slices.Equal(w.token.periods(), []uint32{2}) })
		answer := r.read(asks...)
		for i := range asks {
			if i < left {
				r.value(asks[i], answer.Items[i])
			} else if answer.Items[i].Outcome != policies.CodeKeyMissing {
				t.Errorf("behind the cut: %s", string(answer.Items[i].Outcome))
			}
		}
		if !said.has("of them do not unwrap") {
			t.Error("it does not say so")
		}
	}
}

// TestStartsThatAreRefused: a token older than the vault's keys, and a revocation in custody sealed that is not done when the vault has no place for such keys.
func TestStartsThatAreRefused(t *testing.T) {
	w := sealedWorld(t)
	r := w.reader()
	asks := w.granted(r, 1)
	old := newSoftToken()
	old.sealing[1] = w.token.sealing[1]
	w.token.newSealingKey()
	w.moved(2)
	fails := func(name, want string, change func(*Config)) {
		t.Helper()
		cfg := w.config()
		change(&cfg)
		var err error
		cfg.Log, err = keylog.Open(t.Context(), w.logConfig())
		must(t, err)
		defer cfg.Log.Close()
		v, err := Open(t.Context(), cfg)
		if err == nil {
			v.Close(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	w.kill()
	fails("an older token", "put back to an older state", func(c *Config) { c.Token = old })
	w.reopen(true)

	w.token.hook = func(op string) error {
		if op == "forget" {
			return errors.New("away")
		}
		return nil
	}
	s, _ := asks[0].o.revocationOf(nil, asks[0].grant, asks[0].field)
	if _, err := w.submit(s); err == nil {
		t.Fatal("acknowledged")
	}
	w.token.hook = nil
	w.kill()
	w.document.Tokens[0].ImportKeys = w.document.Tokens[0].ImportKeys[:1]
	fails("a revocation that is not done", "`keys`", func(c *Config) { c.Keys = "" })
	w.reopen(true)
	if w.held() != 0 {
		t.Error("the revoked key is still there")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "keys")); err != nil {
		t.Error(err)
	}
}

// TestDeletedKeyIsNotMovedOver: a key is read to be moved, its import is abandoned, and the owner sends the grant again with another key. What was read is
// not stored over it, although both are a first version.
func TestDeletedKeyIsNotMovedOver(t *testing.T) {
	w := sealedWorld(t)
	store := w.vault.sealing.store
	id := sealed.ID{9}
	must(t, store.Put(id, sealed.Key{Period: 1, Blob: []byte("abandoned")}))
	moves, _, _, err := store.Older([]sealed.ID{id}, 2, 1)
	must(t, err)
	must(t, store.Delete(id))
	must(t, store.Put(id, sealed.Key{Period: 2, Blob: []byte("granted")}))
	moves[0].New = sealed.Key{Period: 2, Blob: []byte("abandoned, moved")}
	if done, err := store.Replace(moves); err != nil || len(done) != 0 {
		t.Errorf("replaced %v, %v", done, err)
	}
	if k, err := store.Get(id); err != nil || string(k.Blob) != "granted" {
		t.Errorf("stored is %q, %v", k.Blob, err)
	}
}
