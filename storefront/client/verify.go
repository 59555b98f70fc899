package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Verification is what the key-use log says of an owner, held against what this device knows.
type Verification struct {
	Entries int     `json:"entries"` // of the history, each proven
	Size    uint64  `json:"size"`    // of the log under which they were proven
	Checks  []Check `json:"checks"`
}

// Check is one comparison. Wrong lists what does not agree, in plain sentences; none means that all does.
type Check struct {
	What  string   `json:"what"`
	Wrong []string `json:"wrong"`
}

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
	err = o.eachEntry(ctx, 1<<30, true, func(index uint64, _ time.Time, entry evidence.Entry, d *evidence.Details) {
		n++
		h.add(index, entry, d)
	})
	if err != nil {
		return nil, err
	}
	hashes := make([]policies.Hash, len(documents))
	for i, e := range documents {
		hashes[i] = policies.Hash(e.Hash)
	}
	v := &Verification{Entries: n, Size: o.Log().Size, Checks: []Check{
		{"enrolment", h.enrolment(o.id)}, {"chain", h.chain(hashes, o.state.Known)}, {"grants", h.inForce(o.state.Grants)},
		{"revocations", h.destroyed()}, {"newest manifest", h.head(o.state.Manifest)},
	}}
	return v, o.save()
}

// recorded is what a history says was accepted of an owner. Entries come newest first.
type recorded struct {
	identities []policies.Hash
	links      []link
	givenUp    []link                 // by readers: no links of the chain
	gone       map[policies.Hash]bool // revocations whose keys were destroyed
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
		if h.gone == nil {
			h.gone = map[policies.Hash]bool{}
		}
		h.gone[d.Document] = true
	}
}

func (h *recorded) enrolment(id policies.IdentityID) (wrong []string) {
	if len(h.identities) != 1 || h.identities[0] != policies.Hash(id) {
		wrong = append(wrong, fmt.Sprintf("The log shows %d enrolments of you, and there must be one, of the keys of this device.", len(h.identities)))
	}
	return wrong
}

// chain compares the recorded links with the owner's own documents, which were verified and follow one another.
func (h *recorded) chain(documents []policies.Hash, known position) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	times := map[uint64]int{}
	for _, l := range h.links {
		times[l.Seq]++
		switch {
		case l.Seq == 0 || l.Seq > uint64(len(documents)):
			say("The log has a %s as number %d of your documents (entry %d), and this device knows of none.", l.kind, l.Seq, l.index)
		case l.Document != documents[l.Seq-1]:
			say("The log has another %s as number %d of your documents (entry %d) than you signed.", l.kind, l.Seq, l.index)
		}
	}
	for seq := range uint64(len(documents)) {
		if n := times[seq+1]; n != 1 {
			say("Number %d of your documents is in the log %d times.", seq+1, n)
		}
	}
	if uint64(len(documents)) != known.Seq || known.Seq > 0 && documents[known.Seq-1] != known.Hash {
		say("The storefront shows %d of your documents, and the vault acknowledged %d to this device.", len(documents), known.Seq)
	}
	return wrong
}

// inForce compares what is granted and ended by the log with what this device takes for granted and ended.
func (h *recorded) inForce(grants []ownedGrant) (wrong []string) {
	granted, ended := map[policies.Hash]bool{}, map[policies.RevokedItem]bool{}
	for _, l := range h.links {
		granted[l.Document] = granted[l.Document] || l.kind == evidence.EntryGrant
		for _, item := range l.Items {
			ended[item] = true
		}
	}
	for _, l := range h.givenUp {
		for _, item := range l.Items {
			ended[item] = true
		}
	}
	for i := range grants {
		g := &grants[i]
		if !granted[g.Hash] {
			wrong = append(wrong, fmt.Sprintf("The log does not show that the grant %s came into force.", g.Doc.ID))
		}
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if there := ended[policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author}]; there == g.live(f) {
				says := map[bool]string{true: "ended", false: "in force"}
				wrong = append(wrong, fmt.Sprintf("%s of the grant %s is %s by the log, and %s by this device.", f.Field, g.Doc.ID, says[there], says[!there]))
			}
		}
	}
	return wrong
}

func (h *recorded) destroyed() (wrong []string) {
	for _, l := range h.links {
		if l.kind == evidence.EntryRevocation && !h.gone[l.Document] {
			wrong = append(wrong, fmt.Sprintf("The revocation in entry %d is in force, and the log does not show yet that its keys were destroyed.", l.index))
		}
	}
	return wrong
}

func (h *recorded) head(m manifestState) (wrong []string) {
	for _, l := range h.links {
		if l.kind != evidence.EntryManifest {
			continue
		}
		if l.Version != m.Version || l.Document != m.Hash {
			wrong = append(wrong, fmt.Sprintf("The newest manifest in the log is version %d (entry %d), and this device has version %d, or another of that version.", l.Version, l.index, m.Version))
		}
		return wrong
	}
	if m.Version != 0 {
		wrong = append(wrong, fmt.Sprintf("The log shows no manifest, and this device published version %d.", m.Version))
	}
	return wrong
}
