package policies

import "time"

// Use is one wish to use a re-encryption key: what a reader asked for, and what stands in its way or not.
type Use struct {
	Reader    ReaderID // who signed the session
	Purpose   string   // of the request
	Leaf      *Leaf    // the item, proven under the author's current head
	Item      *ReadItem
	UsedToday uint64 // releases of the grant's fields to the reader this UTC day, under whichever grant
	Revoked   bool   // a newer signed document ended this field of the grant
}

// Check decides whether a grant permits a use at a time, given that signatures, session, nonce and proof have been
// verified. It is a pure function: no I/O, no clock, the same answer for the same arguments for ever, which is what lets an
// auditor re-justify a release years later. It returns nil or a [Code].
//
// The order is fixed, so that the first reason given is always the same one: whose grant and for what, then whether it is in
// force, then how it may be used.
func Check(g *Grant, u Use, now time.Time) error {
	if g == nil || u.Item == nil || g.Reader != u.Reader || g.Owner != u.Item.Owner {
		return CodeNoGrant
	}
	f, ok := g.Field(u.Item.Field, u.Item.Writer())
	if !ok {
		return CodeNoGrant
	}
	if u.Revoked {
		return CodeRevoked
	}
	if code := g.InForce(now); code != "" {
		return code
	}
	if u.Purpose != g.Purpose {
		return CodePurpose
	}
	if u.Leaf == nil || u.Leaf.Slot != g.Slot(f) {
		return CodeLeaf
	}
	if g.Limits.ReadsPerDay != 0 && u.UsedToday >= g.Limits.ReadsPerDay {
		return CodeLimit
	}
	return nil
}

// InForce is why a grant is not in force at a time, if it is not: its time has not come, or is over.
func (g *Grant) InForce(now time.Time) Code {
	if now.Unix() < g.NotBefore {
		return CodeNotYet
	}
	if now.Unix() >= g.Expires {
		return CodeGrantExpired
	}
	return ""
}
