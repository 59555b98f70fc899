package vault

import (
	"context"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// checksAtOnce is how many keys the token is asked for at a time while the start's check goes on beside everybody's work.
const checksAtOnce = 32

// mostNamed is how many lost keys are named at a time, in a log that has other things to tell.
const mostNamed = 50

// eachKey calls f for every key that a grant in force stands for, while the state is held for reading.
func (v *Vault) eachKey(f func(key KeyID, g *ledger.Grant, granted *policies.GrantedField)) {
	v.ledger.Read(func(s *ledger.State) {
		s.EachKey(func(g *ledger.Grant, granted *policies.GrantedField) {
			f(keyID(g.Document.ID, granted.Field, granted.Author), g, granted)
		})
	})
}

// nameLost says which keys of grants in force are lost, and counts them.
func (v *Vault) nameLost(why string, lost func(KeyID) bool) {
	named := 0
	v.eachKey(func(key KeyID, g *ledger.Grant, granted *policies.GrantedField) {
		if !lost(key) {
			return
		}
		if named++; named <= mostNamed {
			v.cfg.Logger.Error("a key of a grant in force is lost; its owner must grant again", "key", key.String(), "why", why, "custody", string(g.Document.Custody), "grant", g.Document.ID.String(),
				"field", string(granted.Field))
		}
	})
	v.lost.Add(int64(named))
}

// recordedChecks are the check values that the key-use log has of the resident keys in force.
func (v *Vault) recordedChecks() map[KeyID]KeyCheck {
	recorded := map[KeyID]KeyCheck{}
	v.eachKey(func(key KeyID, g *ledger.Grant, granted *policies.GrantedField) {
		if check := g.Check(granted.Field, granted.Author); len(check) > 0 && g.Document.Custody == policies.CustodyResident {
			recorded[key] = KeyCheck(check)
		}
	})
	return recorded
}

// checkKeys holds each resident key of the start against the check value that was recorded when it was imported. A token need not notice that a key in it is not what it was: SoftHSM
// encrypts its objects and does not authenticate them, and after a flipped bit derives with another key. Readers would be told that their storefront lies.
func (v *Vault) checkKeys(recorded map[KeyID]KeyCheck) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.chores.Go(func() {
		select {
		case <-v.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	wrong := map[KeyID]bool{}
	for some := range slices.Chunk(slices.Collect(maps.Keys(recorded)), checksAtOnce) {
		for i, c := range v.cfg.Token.Checks(ctx, some) {
			if c.Err == nil && c.Check != recorded[some[i]] {
				wrong[some[i]] = true
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
	if len(wrong) > 0 { // of those that are in force still
		v.nameLost("what the token has under its name is another key", func(key KeyID) bool { return wrong[key] })
	}
	v.cfg.Logger.Info("held the token's keys against the key-use log", "keys", len(recorded), "wrong", len(wrong))
}
