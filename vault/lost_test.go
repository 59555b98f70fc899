package vault

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

// TestLostKeysAreNamed: at the start the vault's log names each key of a grant in force that the token does not have, and no other; the health says how many.
func TestLostKeysAreNamed(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	o.set("street", "s")
	gone, whole := o.grant(r, nil, "name"), o.grant(r, nil, "street")
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
