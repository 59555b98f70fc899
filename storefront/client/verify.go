package client

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// Verification is what the key-use log says of an owner, held against what this device knows.
type Verification struct {
	Entries int     `json:"entries"` // of the history, each proven
	Size    uint64  `json:"size"`    // of the log under which they were proven
	Frozen  bool    `json:"frozen"`  // two operators stopped all reading, and the owner has not ended that
	Checks  []Check `json:"checks"`
}

// Check is one comparison. Wrong lists what does not agree; nothing means that all does.
type Check struct {
	What  string    `json:"what"`
	Wrong []Finding `json:"wrong"`
}

// Finding is something that does not agree, in a plain sentence. As text it is English.
type Finding struct {
	phrase string
	pairs  []any
}

// In is the sentence in a language.
func (f Finding) In(l phrases.Language) string { return phrases.Say(l, f.phrase, f.pairs...) }

func (f Finding) String() string { return f.In(phrases.English) }

// MarshalText makes it a string in JSON.
func (f Finding) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

func finding(phrase string, pairs ...any) Finding { return Finding{"verify." + phrase, pairs} }

// Agrees reports whether all comparisons agree.
func (v *Verification) Agrees() bool {
	return !slices.ContainsFunc(v.Checks, func(c Check) bool { return len(c.Wrong) > 0 })
}

// Verify walks the owner's whole history, with proofs, under checkpoints that are joined to the kept one, and compares: the enrolment, the chain of
// documents (each number once, signed by this owner, following one another, as this device knows it), the grants in force, the revocations and that
// their keys were destroyed, and the newest manifest. The error is that it could not be done or that something was made up; what does not agree is
// in the result. Entries that the storefront leaves out show where the chain names them; uses that it leaves out do not.
func (o *Owner) Verify(ctx context.Context) (_ *Verification, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.syncChain(ctx); err != nil {
		return nil, err
	}
	if err := o.syncGivenUp(ctx); err != nil {
		return nil, err
	}
	_, documents, err := o.fetchChain(ctx, position{Hash: policies.Hash(o.id)})
	if err != nil {
		return nil, err
	}
	var h recorded
	n := 0
	err = o.eachEntry(ctx, 1<<30, true, func(index uint64, at time.Time, entry evidence.Entry, d *evidence.Details) bool {
		n++
		if h.add(index, entry, d); h.newest == evidence.EntryFreeze && entry.Kind == evidence.EntryFreeze {
			o.state.Frozen = max(o.state.Frozen, at.Unix())
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, l := range h.closed { // proven, as a receipt is, where the storefront does not show that
		o.applyGone(goneReader{l.Reader, l.Document, l.Index})
	}
	hashes := make([]policies.Hash, len(documents))
	for i, e := range documents {
		hashes[i] = policies.Hash(e.Hash)
	}
	v := &Verification{Entries: n, Size: o.Log().Size, Frozen: h.newest == evidence.EntryFreeze, Checks: []Check{
		{"enrolment", h.enrolment(o.id)}, {"chain", h.chain(hashes, o.state.Known)}, {"grants", h.inForce(o.state.Grants)},
		{"revocations", append(h.destroyed(), h.gone(o.state.Grants, o.gone)...)}, {"newest manifest", h.head(o.state.Manifest)},
	}}
	return v, o.save()
}

// recorded is what a history says was accepted of an owner. Entries come newest first.
type recorded struct {
	identities []policies.Hash
	links      []link
	givenUp    []link                 // by readers: no links of the chain
	closed     []link                 // what ended with the accounts of its readers: the destruction of the keys
	final      map[policies.Hash]bool // revocations whose keys were destroyed
	newest     evidence.Kind          // of freezes and thaws
}

// link is an accepted document of the chain.
type link struct {
	index uint64
	kind  evidence.Kind
	*evidence.Details
}

func (h *recorded) add(index uint64, entry evidence.Entry, d *evidence.Details) {
	if entry.Outcome != policies.CodeAccepted {
		return
	}
	if h.newest == "" && (entry.Kind == evidence.EntryFreeze || entry.Kind == evidence.EntryThaw) {
		h.newest = entry.Kind
	}
	switch entry.Kind {
	case evidence.EntryIdentity:
		h.identities = append(h.identities, d.Document)
	case evidence.EntryManifest, evidence.EntryGrant, evidence.EntryRevocation, evidence.EntryWriteGrant, evidence.EntryWriteEnd, evidence.EntrySuccession, evidence.EntryNotice, evidence.EntryThaw:
		if entry.Kind == evidence.EntryManifest && d.Author != policies.AuthorID(d.Owner) {
			return // a writer's: it is no link of the owner's chain
		}
		h.links = append(h.links, link{index, entry.Kind, d})
	case evidence.EntryGivenUp:
		h.givenUp = append(h.givenUp, link{index, entry.Kind, d})
	case evidence.EntryDestroyed:
		if !d.Reader.IsZero() {
			h.closed = append(h.closed, link{index, entry.Kind, d})
			return
		}
		if h.final == nil {
			h.final = map[policies.Hash]bool{}
		}
		h.final[d.Document] = true
	}
}

func (h *recorded) enrolment(id policies.IdentityID) (wrong []Finding) {
	if len(h.identities) != 1 || h.identities[0] != policies.Hash(id) {
		wrong = append(wrong, finding("enrolments", "n", len(h.identities)))
	}
	return wrong
}

// chain compares the recorded links with the owner's own documents, which were verified and follow one another.
func (h *recorded) chain(documents []policies.Hash, known position) (wrong []Finding) {
	say := func(phrase string, pairs ...any) { wrong = append(wrong, finding(phrase, pairs...)) }
	times := map[uint64]int{}
	for _, l := range h.links {
		times[l.Seq]++
		switch {
		case l.Seq == 0 || l.Seq > uint64(len(documents)):
			say("unknown", "number", l.Seq, "entry", l.index)
		case l.Document != documents[l.Seq-1]:
			say("another", "number", l.Seq, "entry", l.index)
		}
	}
	for seq := range uint64(len(documents)) {
		if n := times[seq+1]; n != 1 {
			say("times", "number", seq+1, "n", n)
		}
	}
	if uint64(len(documents)) != known.Seq || known.Seq > 0 && documents[known.Seq-1] != known.Hash {
		say("length", "shown", len(documents), "confirmed", known.Seq)
	}
	return wrong
}

// inForce compares what is granted and ended by the log with what this device takes for granted and ended.
func (h *recorded) inForce(grants []ownedGrant) (wrong []Finding) {
	granted, ended := map[policies.Hash]bool{}, map[policies.RevokedItem]bool{}
	for _, l := range h.links {
		granted[l.Document] = granted[l.Document] || l.kind == evidence.EntryGrant
		for _, item := range l.Items {
			ended[item] = true
		}
	}
	for _, l := range slices.Concat(h.givenUp, h.closed) {
		for _, item := range l.Items {
			ended[item] = true
		}
	}
	for i := range grants {
		g := &grants[i]
		for _, item := range g.Gone { // by the closure, which is not in this history; that its key is gone is another question
			ended[item] = true
		}
		if !granted[g.Hash] {
			wrong = append(wrong, finding("unseen", "grant", g.Doc.ID))
		}
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if there := ended[policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author}]; there == g.live(f) {
				phrase := map[bool]string{true: "ended", false: "not ended"}[there]
				wrong = append(wrong, finding(phrase, "field", f.Field, "grant", g.Doc.ID))
			}
		}
	}
	return wrong
}

func (h *recorded) destroyed() (wrong []Finding) {
	for _, l := range h.links {
		if l.kind == evidence.EntryRevocation && !h.final[l.Document] {
			wrong = append(wrong, finding("not final", "entry", l.index))
		}
	}
	return wrong
}

// gone compares what ended with the accounts of its readers with what the log says that was destroyed because of that.
func (h *recorded) gone(grants []ownedGrant, closing func(policies.ReaderID) (goneReader, bool)) (wrong []Finding) {
	destroyed := map[policies.RevokedItem]bool{}
	for _, l := range h.closed {
		for _, item := range l.Items {
			destroyed[item] = true
		}
	}
	for i := range grants {
		for _, item := range grants[i].Gone {
			if c, known := closing(grants[i].Doc.Reader); known && !destroyed[item] {
				wrong = append(wrong, finding("gone not final", "field", item.Field, "grant", item.Grant, "entry", c.Entry))
			}
		}
	}
	return wrong
}

func (h *recorded) head(m manifestState) (wrong []Finding) {
	for _, l := range h.links {
		if l.kind != evidence.EntryManifest {
			continue
		}
		if l.Version != m.Version || l.Document != m.Hash {
			wrong = append(wrong, finding("version", "version", l.Version, "entry", l.index, "own", m.Version))
		}
		return wrong
	}
	if m.Version != 0 {
		wrong = append(wrong, finding("no version", "own", m.Version))
	}
	return wrong
}
