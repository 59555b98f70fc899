package vault

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policies"
)

// TestLostKeysAreNamed: at the start the vault's log names each key of a grant in force that the token does not have, or that is another key there than was granted; the health says
// how many. A key that no grant stands for any more is not among them.
func TestLostKeysAreNamed(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	o.set("name", "n")
	o.set("phone", "p")
	o.set("street", "s")
	gone, changed, whole := o.grant(r, nil, "name"), o.grant(r, nil, "phone"), o.grant(r, nil, "street")
	key := func(g *policies.Grant, f policies.Field) KeyID { return keyID(g.ID, f, policies.AuthorID(o.id)) }
	if h := w.vault.Health(); h.Reason != "" {
		t.Errorf("before: %q", h.Reason)
	}
	w.kill()
	w.token.mu.Lock()
	delete(w.token.keys, key(gone, "name"))
	w.token.keys[key(changed, "phone")] = w.token.keys[key(whole, "street")] // the wrong one
	w.token.mu.Unlock()
	said := new(log)
	w.said = said
	w.reopen(true)
	until(t, "the keys are checked", func() bool { return said.has("held the token's keys against the key-use log") })
	for _, want := range []string{
		"key=" + key(gone, "name").String() + ` why="it is not in the token" custody=resident grant=` + gone.ID.String() + " field=name",
		"key=" + key(changed, "phone").String() + ` why="what the token has under its name is another key" custody=resident grant=` + changed.ID.String() + " field=phone",
	} {
		if !said.has(want) {
			t.Errorf("nobody says %s", want)
		}
	}
	if said.has(key(whole, "street").String()) {
		t.Error("a whole key is named")
	}
	if h := w.vault.Health(); h.Status != "ok" || !strings.Contains(h.Reason, "2 keys of grants in force") {
		t.Errorf("health: %+v", h)
	}
}
