package vault

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

// twoGrants has an owner let a reader read two fields.
func (w *world) twoGrants() (o *owner, r *reader, name, street *policies.Grant) {
	w.t.Helper()
	o, r = w.owner(), w.reader()
	o.set("name", "n")
	o.set("street", "s")
	return o, r, o.grant(r, nil, "name"), o.grant(r, nil, "street")
}

// TestLostKeysAreNamed: at the start the vault's log names each key of a grant in force that the token does not have, and no other; the health says how many.
func TestLostKeysAreNamed(t *testing.T) {
	w := newWorld(t)
	o, _, gone, whole := w.twoGrants()
	key := func(g *policies.Grant, f policies.Field) KeyID { return keyID(g.ID, f, policies.AuthorID(o.id)) }
	if h := w.vault.Health(); h.Reason != "" {
		t.Errorf("before: %q", h.Reason)
	}
	w.kill()
	w.token.mu.Lock()
	delete(w.token.keys, key(gone, "name"))
	w.token.mu.Unlock()
	said := new(log)
	w.said = said
	w.reopen(true)
	if want := "key=" + key(gone, "name").String() + ` why="it is not in the token" custody=resident grant=` + gone.ID.String() + " field=name"; !said.has(want) {
		t.Errorf("nobody says %s", want)
	}
	if said.has(key(whole, "street").String()) {
		t.Error("a whole key is named")
	}
	if h := w.vault.Health(); h.Status != "ok" || !strings.Contains(h.Reason, "lost keys of grants in force at the start: 1;") {
		t.Errorf("health: %+v", h)
	}
}

// TestDisputedKeysAreNamed: keys of grants in force of whose names the token has different keys are told apart from others in log and health, which says how many.
func TestDisputedKeysAreNamed(t *testing.T) {
	w := newWorld(t)
	o, _, two, whole := w.twoGrants()
	key := func(g *policies.Grant, f policies.Field) KeyID { return keyID(g.ID, f, policies.AuthorID(o.id)) }
	if h := w.vault.Health(); h.Reason != "" || h.Disputed != 0 {
		t.Errorf("before: %+v", h)
	}
	w.kill()
	w.token.disputed = []KeyID{key(two, "name"), {9}} // and one that no grant stands for
	said := new(log)
	w.said = said
	w.reopen(true)
	if want := "key=" + key(two, "name").String(); !said.has(want) || !said.has("different keys of this name") || said.has(key(whole, "street").String()) {
		t.Errorf("it is not said that there are several of %s, or of others too", want)
	}
	if h := w.vault.Health(); h.Status != "ok" || h.Resident != 2 || h.Disputed != 1 || strings.Contains(h.Reason, "lost") || !strings.Contains(h.Reason, "beside others of the same name, and not used: 1;") {
		t.Errorf("health: %+v", h)
	}
}

// TestIndestructibleKeys: a host with the PIN makes keys that the token refuses to destroy, one that is revoked and one that no grant stands for. The revocation is refused as long as its key is there and names
// why, and the vault starts all the same.
func TestIndestructibleKeys(t *testing.T) {
	w := newWorld(t)
	o, r, g, kept := w.twoGrants()
	key := keyID(g.ID, "name", policies.AuthorID(o.id))
	w.token.mu.Lock()
	w.token.refuses = map[KeyID]bool{key: true, {9}: true}
	w.token.keys[KeyID{9}] = w.token.keys[key]
	w.token.mu.Unlock()
	s, hash := o.revocationOf(nil, g, "name")
	if _, err := w.submit(s); !errors.Is(err, policies.CodeTokenFailure) || !errors.Is(err, ErrKeyStuck) {
		t.Errorf("revoked with a key that stays: %v", err)
	}
	said := new(log)
	w.said = said
	for _, database := range []bool{true, false} {
		w.restart(database)
		if !said.has("a revocation is still not completed") || !said.has("key="+(KeyID{9}).String()) {
			t.Error("the start does not say what stays")
		}
		if got := r.read(ask{o, g, "name", 0}).Items[0].Outcome; got != policies.CodeRevoked {
			t.Errorf("what is revoked: %s", got)
		}
		r.value(ask{o, kept, "street", 0}, r.read(ask{o, kept, "street", 0}).Items[0])
		if _, err := w.submit(s); !errors.Is(err, ErrKeyStuck) {
			t.Errorf("sent again: %v", err)
		}
	}
	w.token.mu.Lock()
	w.token.refuses = nil
	w.token.mu.Unlock()
	w.accepted(s)
	o.seq, o.prev = o.seq+1, hash
	w.restart(true)
	if w.held() != 1 {
		t.Errorf("%d keys are left", w.held())
	}
}
