package vault

import (
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// mostNamed is how many lost keys are named at a time, in a log that has other things to tell.
const mostNamed = 50

// eachKey calls f for every key that a grant stands for, while the state is held for reading. Of a grant whose reader closed their account the key is on its way to its end: it may be
// there or not.
func (v *Vault) eachKey(f func(key KeyID, g *ledger.Grant, granted *policies.GrantedField, ending bool)) {
	v.ledger.Read(func(s *ledger.State) {
		s.EachKey(func(g *ledger.Grant, granted *policies.GrantedField, closed bool) {
			f(keyID(g.Document.ID, granted.Field, granted.Author), g, granted, closed)
		})
	})
}

// nameLost says which keys of grants in force are lost, and returns how many.
func (v *Vault) nameLost(why string, lost func(KeyID) bool) (named int64) {
	v.eachKey(func(key KeyID, g *ledger.Grant, granted *policies.GrantedField, ending bool) {
		if ending || !lost(key) {
			return
		}
		if named++; named <= mostNamed {
			v.cfg.Logger.Error("a key of a grant in force is lost; its owner must grant again", "key", key.String(), "why", why, "custody", string(g.Document.Custody), "grant", g.Document.ID.String(),
				"field", string(granted.Field))
		}
	})
	return named
}
