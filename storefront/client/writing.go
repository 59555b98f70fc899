package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Writers. An owner lets somebody else write fields; each writer is an author of its own, under keys of its own, which readers of the field get besides the owner's.
//
// One rule decides between several authors: the newest by the vault's order counts. To adopt what a writer wrote, and to reject it, are new versions by the owner.
//
// A writer's items cannot move to a new epoch by the owner's hand: only the writer can sign its manifests. So when a field rotates the writer is given the new epoch
// to write in, after its readers were, and what it wrote last stays readable in the old one, under the old keys, until it writes again.

// ownedWriteGrant is a write grant of this owner's.
type ownedWriteGrant struct {
	Hash  policies.Hash `json:"hash"`
	Doc   writing.Grant `json:"doc"`
	Ended []endedWrite  `json:"ended,omitzero"`
}

// endedWrite is a field that may not be written under the grant any more, and the version of the writer's newest manifest by whoever ended it.
type endedWrite struct {
	writing.Ended
	Last uint64 `json:"last,omitzero"`
}

// live reports whether a field may be written under the grant as far as this device knows; time is not asked.
func (g *ownedWriteGrant) live(f policies.Field) bool {
	return !slices.ContainsFunc(g.Ended, func(e endedWrite) bool { return e.Field == f })
}

// writtenBy is what one writer has published for this owner, as this device last saw it.
type writtenBy struct {
	Author   policies.AuthorID `json:"author"`
	Manifest manifestState     `json:"manifest"`
	Items    []writtenItem     `json:"items,omitzero"`
}

type writtenItem struct {
	Leaf    []byte `json:"leaf"`
	At      int64  `json:"at"`               // when the vault accepted the manifest with which this device first saw it, Unix milliseconds
	Settled bool   `json:"settled,omitzero"` // adopted, rejected, or overtaken by a value that this device set later
}

// slotOf is a slot of this owner, in a task's words.
type slotOf struct {
	Field  policies.Field    `json:"field"`
	Epoch  uint64            `json:"epoch"`
	Author policies.AuthorID `json:"author"`
}

// fieldEpoch is the epoch that a field is in.
func (o *Owner) fieldEpoch(f policies.Field) uint64 {
	for _, l := range o.leaves() {
		if l.Field == f {
			return l.Epoch
		}
	}
	return o.firstEpoch(f)
}

// written is the leaf of a field by a writer as this device knows it.
func (o *Owner) written(author policies.AuthorID, f policies.Field) (policies.Leaf, *writtenItem, bool) {
	for i := range o.state.Written {
		w := &o.state.Written[i]
		if w.Author != author {
			continue
		}
		for j := range w.Items {
			if l, err := policies.ParseLeaf(w.Items[j].Leaf); err == nil && l.Field == f {
				return l, &w.Items[j], true
			}
		}
	}
	return policies.Leaf{}, nil, false
}

// seenOf is the version of a writer's newest manifest that this device has seen.
func (o *Owner) seenOf(author policies.AuthorID) uint64 {
	for i := range o.state.Written {
		if w := &o.state.Written[i]; w.Author == author {
			return w.Manifest.Version
		}
	}
	return 0
}

// writeSlots are the slots of a field that others write, or wrote what may still be read.
func (o *Owner) writeSlots(f policies.Field) []slotOf {
	var out []slotOf
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		epoch, ok := g.Doc.Epoch(f)
		if !ok {
			continue
		}
		s := slotOf{f, epoch, g.Doc.Writer}
		needed := g.live(f) && o.now().Unix() < g.Doc.Expires
		l, _, there := o.written(g.Doc.Writer, f)
		needed = needed || there && l.Epoch == epoch && g.live(f)
		for _, e := range g.Ended {
			if e.Field == f && !e.Kept.IsZero() { // another device may have kept what this one has not seen
				needed = needed || there && l.Hash() == e.Kept || o.seenOf(g.Doc.Writer) < e.Last
			}
		}
		if needed && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// awaited reports whether a task waits that will make a writer of a slot.
func (o *Owner) awaited(s slotOf) bool {
	return slices.ContainsFunc(o.state.Tasks, func(t task) bool {
		return (t.Kind == taskWrite || t.Kind == taskFollow) && policies.AuthorID(t.Reader) == s.Author && slices.Contains(t.Fields, s.Field)
	})
}

// toNewest reports whether a grant is to the key that its reader has now.
func (o *Owner) toNewest(g *ownedGrant) bool {
	c, ok := o.contact(g.Doc.Reader)
	if !ok {
		return true
	}
	e, err := envelope.Parse(c.Relationship)
	return err != nil || policies.Hash(e.Hash) == g.Doc.Relationship
}

// lacking is the grants that readers of some fields need so that they can read what others write in them: what is written now, and more slots to come.
func (o *Owner) lacking(stroke policies.DocumentID, fields []policies.Field, more []slotOf) []task {
	type who struct {
		reader policies.ReaderID
		field  policies.Field
	}
	type key struct {
		reader policies.ReaderID
		slot   slotOf
		terms  terms
	}
	newest, held := map[who]*ownedGrant{}, map[key]bool{}
	var order []who
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if !slices.Contains(fields, f.Field) || !g.live(f) {
				continue
			}
			if o.toNewest(g) {
				held[key{g.Doc.Reader, slotOf{f.Field, f.Epoch, f.Author}, termsOf(&g.Doc)}] = true
			}
			w := who{g.Doc.Reader, f.Field}
			if newest[w] == nil {
				order = append(order, w)
			}
			if f.Author == o.author() && (newest[w] == nil || g.Doc.Seq > newest[w].Doc.Seq) {
				newest[w] = g
			}
		}
	}
	var out []task
	for _, w := range order {
		g := newest[w]
		if g == nil || o.now().Unix() >= g.Doc.Expires || o.departed[w.reader] { // over, it took the place of what was granted before it all the same
			continue
		}
		wanted := o.writeSlots(w.field)
		for _, s := range more {
			if s.Field == w.field && !slices.Contains(wanted, s) {
				wanted = append(wanted, s)
			}
		}
		for _, s := range wanted {
			if held[key{w.reader, s, termsOf(&g.Doc)}] {
				continue
			}
			t := task{Kind: taskGrant, Stroke: stroke, Reader: w.reader, Terms: termsOf(&g.Doc), Fields: []policies.Field{s.Field}, Slots: []slotOf{s}}
			own := slotOf{s.Field, o.fieldEpoch(s.Field), o.author()}
			if _, known := g.Doc.Field(s.Field, s.Author); !known { // with the owner's: by the grant that comes with the owner's item readers learn who else writes
				t.Slots = append(t.Slots, own)
			}
			at := slices.IndexFunc(out, func(have task) bool {
				return have.Reader == t.Reader && have.Terms == t.Terms && len(have.Slots) < policies.MaxGrantFields-1 &&
					!slices.ContainsFunc(have.Slots, func(h slotOf) bool { return h.Field == s.Field && h.Author == s.Author })
			})
			if at < 0 {
				out = append(out, t)
				continue
			}
			for _, slot := range t.Slots {
				if !slices.Contains(out[at].Slots, slot) {
					out[at].Slots = append(out[at].Slots, slot)
				}
			}
			if !slices.Contains(out[at].Fields, s.Field) {
				out[at].Fields = append(out[at].Fields, s.Field)
			}
		}
	}
	return out
}

// toWrite are the slots that a task lets somebody write.
func (o *Owner) toWrite(t *task) (out []slotOf) {
	for _, f := range without(t.Fields, t.Later) {
		out = append(out, slotOf{f, o.fieldEpoch(f), policies.AuthorID(t.Reader)})
	}
	return out
}

// lacks reports whether a grant of slots is still what its reader needs: one that was planned before the newest documents were known may be to a reader who was stopped meanwhile.
func (o *Owner) lacks(t *task) bool {
	var more []slotOf
	for i := range o.state.Tasks {
		if w := &o.state.Tasks[i]; w.Kind == taskWrite && w.Stroke == t.Stroke {
			more = append(more, o.toWrite(w)...)
		}
	}
	have := map[slotOf]bool{}
	for _, l := range o.lacking(t.Stroke, t.Fields, more) {
		if l.Reader == t.Reader && l.Terms == t.Terms {
			for _, s := range l.Slots {
				have[s] = true
			}
		}
	}
	return !slices.ContainsFunc(t.Slots, func(s slotOf) bool { return !have[s] })
}

func termsOf(g *policies.Grant) terms {
	return terms{Purpose: g.Purpose, NotBefore: g.NotBefore, Expires: g.Expires, ReadsPerDay: g.Limits.ReadsPerDay, Custody: g.Custody}
}

// follow turns the first task into what its fields need: grants to their readers, then write grants in the epoch that each field is in, then the end of what these
// take the place of. Readers come first: who may read a field never meets an item that it has no key for.
func (o *Owner) follow(ctx context.Context) error {
	if t := &o.state.Tasks[0]; t.Reader.IsZero() && len(o.writersOf(t.Fields)) == 0 { // nobody else ever wrote in them
		o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
		o.saveSoon()
		return nil
	}
	if o.withdraw() {
		return o.save()
	}
	if err := o.syncGivenUp(ctx); err != nil { // what a reader gave up is not granted anew
		return err
	}
	t := o.state.Tasks[0]
	for _, author := range o.writersOf(t.Fields) {
		_ = o.syncWritten(ctx, author) // what cannot be had now is what this device knows
	}
	t = o.state.Tasks[0]
	var writes []task
	var slots []slotOf
	add := func(writer policies.AuthorID, terms terms, renews policies.Hash, f policies.Field) {
		s := slotOf{f, o.fieldEpoch(f), writer}
		if slices.Contains(slots, s) {
			return
		}
		slots = append(slots, s)
		at := slices.IndexFunc(writes, func(w task) bool {
			return policies.AuthorID(w.Reader) == writer && w.Terms == terms && w.Renews == renews
		})
		if at < 0 {
			writes = append(writes, task{Kind: taskWrite, Stroke: t.Stroke, Reader: policies.ReaderID(writer), Terms: terms, Renews: renews})
			at = len(writes) - 1
		}
		writes[at].Fields = append(writes[at].Fields, f)
	}
	if !t.Reader.IsZero() { // somebody new, new terms, or newer keys
		for _, f := range o.toWriteOn(&t) {
			add(policies.AuthorID(t.Reader), t.Terms, t.Renews, f)
		}
		for i := range writes {
			writes[i].Wished, writes[i].Later = t.Wished, t.Later
		}
	}
	for _, f := range t.Fields {
		newest := map[policies.AuthorID]*ownedWriteGrant{}
		for i := range o.state.Writers {
			g := &o.state.Writers[i]
			if _, ok := g.Doc.Epoch(f); ok && g.live(f) && (newest[g.Doc.Writer] == nil || g.Doc.Seq > newest[g.Doc.Writer].Doc.Seq) {
				newest[g.Doc.Writer] = g
			}
		}
		for writer, g := range newest {
			if o.departed[policies.ReaderID(writer)] {
				continue
			}
			if epoch, _ := g.Doc.Epoch(f); epoch < o.fieldEpoch(f) && o.now().Unix() < g.Doc.Expires {
				add(writer, terms{Purpose: g.Doc.Purpose, NotBefore: g.Doc.NotBefore, Expires: g.Doc.Expires}, g.Hash, f)
			}
		}
	}
	next := append(o.lacking(t.Stroke, t.Fields, slots), writes...)
	if end := (task{Kind: taskEndWrite, Stroke: t.Stroke, Reason: policies.ReasonSuperseded}); len(writes) > 0 || len(o.endItems(&end)) > 0 {
		next = append(next, end)
	}
	if len(next) > 0 {
		next = append(next, task{Kind: taskRevoke, Stroke: t.Stroke, Reason: policies.ReasonSuperseded})
	}
	o.state.Tasks = append(next, o.state.Tasks[1:]...)
	return o.save()
}

// toWriteOn are those of the fields of a task that the write grant which it renews still gives its writer, as [Owner.toRenew]; all, if it renews none.
func (o *Owner) toWriteOn(t *task) []policies.Field {
	return slices.DeleteFunc(slices.Clone(t.Fields), func(f policies.Field) bool {
		newest := o.writeGrantOf(policies.AuthorID(t.Reader), f)
		return !t.Renews.IsZero() && (newest == nil || newest.Hash != t.Renews)
	})
}

// writeGrantOf is the newest write grant in force by which a writer writes a field, or nil.
func (o *Owner) writeGrantOf(writer policies.AuthorID, f policies.Field) (newest *ownedWriteGrant) {
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		if _, ok := g.Doc.Epoch(f); ok && g.Doc.Writer == writer && g.live(f) && (newest == nil || g.Doc.Seq > newest.Doc.Seq) {
			newest = g
		}
	}
	return newest
}

// writersOf are those who write, or wrote, some of the fields, or any if there are none.
func (o *Owner) writersOf(fields []policies.Field) []policies.AuthorID {
	var out []policies.AuthorID
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		covered := len(fields) == 0 || slices.ContainsFunc(fields, func(f policies.Field) bool { _, ok := g.Doc.Epoch(f); return ok })
		if covered && !slices.Contains(out, g.Doc.Writer) {
			out = append(out, g.Doc.Writer)
		}
	}
	return out
}

// writable reports whether somebody else may write a field.
func (o *Owner) writable(f policies.Field) bool { return len(o.writeSlots(f)) > 0 }

// GrantWrite lets a contact write fields, whether the owner has a value of them or not. It reads nothing by that, not even what others wrote: who shall read too is
// granted that besides. Everyone who may read a field will read what is written; the newest counts. A write grant that the contact had for a field ends.
// Of the options, ReadsPerDay and Custody mean nothing here.
func (o *Owner) GrantWrite(ctx context.Context, writer policies.ReaderID, fields []policies.Field, opts GrantOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.contact(writer); !ok {
		return ErrNoContact
	}
	if len(fields) == 0 || len(fields) > policies.MaxGrantFields {
		return fmt.Errorf("%w: a grant names 1 to %d fields", policies.ErrMalformed, policies.MaxGrantFields)
	}
	for _, f := range fields {
		if err := f.Validate(); err != nil {
			return err
		}
	}
	t, err := o.newTerms(opts)
	if err != nil {
		return err
	}
	t.ReadsPerDay, t.Custody = 0, ""
	fields = slices.Compact(slices.Sorted(slices.Values(fields)))
	o.state.Tasks = append(o.state.Tasks, task{Kind: taskFollow, Stroke: policies.NewDocumentID(), Reader: writer, Fields: fields, Terms: t, Wished: o.now().Unix()})
	return o.told(o.saveAndRun(ctx))
}

// EndWrite ends what a contact may write, all of it if no field is named. What it wrote up to now stays readable, until the owner sets something newer; what it
// publishes from here on does not count. It returns nil when a verified receipt says that the vault recorded it, [ErrEnded]: it ended with the account; otherwise it is an [ErrNotStopped] and is tried again.
func (o *Owner) EndWrite(ctx context.Context, writer policies.ReaderID, fields []policies.Field) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	stroke := policies.NewDocumentID()
	t := task{Kind: taskEndWrite, Stroke: stroke, Reader: writer, Fields: fields, Wished: o.now().Unix(), Reason: policies.ReasonWithdrawn}
	unsent, sent := o.cancel(stroke, writer, fields, taskWrite, taskFollow)
	if len(o.endItems(&t)) == 0 {
		t.Blind = true // another device may have let it write what this one does not know of
		if err := o.afterClosing(ctx, o.syncWhole(ctx)); errors.Is(err, ErrEnded) {
			return err
		} else if err != nil && !sent {
			o.state.Tasks = slices.Insert(o.state.Tasks, 0, t)
			return errors.Join(fmt.Errorf("%w: this device knows of no such permission, and could not ask for newer ones: %w", ErrNotStopped, err), o.save())
		} else if err == nil {
			t.Blind = false
		}
		if len(o.endItems(&t)) == 0 && !sent {
			if unsent { // what was to be granted never left this device
				return o.save()
			}
			return errors.Join(fmt.Errorf("%w: this contact may not write that", policies.CodeNoWriteGrant), o.save())
		}
	}
	o.state.Tasks = append([]task{t}, o.state.Tasks...)
	err := o.saveAndRun(ctx)
	if slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.Stroke == stroke }) && !errors.Is(err, ErrNotStopped) {
		return fmt.Errorf("%w: %w", ErrNotStopped, err)
	}
	return err
}

// buildWriteGrant makes a write grant's document. The points exist within this function only.
func (o *Owner) buildWriteGrant(t *task, v *policies.VaultDocument) (*envelope.Envelope, error) {
	if t.to == nil {
		return nil, ErrNoContact
	}
	g := &writing.Grant{
		Header: policies.NewHeader("write-grant", o.decided(t)), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink(), Writer: policies.AuthorID(t.Reader),
		Purpose: t.Terms.Purpose, NotBefore: t.Terms.NotBefore, Expires: t.Terms.Expires,
	}
	var points []byte
	defer func() { clear(points[:cap(points)]) }()
	points = make([]byte, 0, 33*len(t.Fields))
	for _, f := range t.Fields {
		w := writing.Field{Field: f, Epoch: o.fieldEpoch(f)}
		key, err := o.keyFor(policies.Slot{Owner: o.ID(), Field: f, Epoch: w.Epoch, Author: g.Writer})
		if err != nil {
			return nil, err
		}
		author, err := key.Author()
		key.Zero()
		if err != nil {
			return nil, err
		}
		point := author.Bytes()
		points = append(points, point...)
		clear(point)
		author.Zero()
		g.Fields = append(g.Fields, w)
	}
	var err error
	if g.Sealed, err = pre.SealBlob(t.to.KEMKey, g.Info(), points); err != nil {
		return nil, err
	}
	return policies.Sign(o.signing, g)
}

// endItems lists what a task is to end: what a writer may write, or what newer write grants to the same writer took the place of.
func (o *Owner) endItems(t *task) map[policies.AuthorID][]writing.Ended {
	out := map[policies.AuthorID][]writing.Ended{}
	for i := range slices.Backward(o.state.Writers) { // the newest first: no document leaves a newer one in force than it ends
		g := &o.state.Writers[i]
		for _, w := range g.Doc.Fields {
			ends := policies.ReaderID(g.Doc.Writer) == t.Reader && (len(t.Fields) == 0 || slices.Contains(t.Fields, w.Field)) && t.means(g.Doc.Purpose, g.Doc.Expires)
			if t.Reason == policies.ReasonSuperseded {
				ends = slices.ContainsFunc(o.state.Writers, func(n ownedWriteGrant) bool {
					_, ok := n.Doc.Epoch(w.Field)
					return ok && n.Doc.Writer == g.Doc.Writer && n.Doc.Seq > g.Doc.Seq && n.live(w.Field)
				})
			}
			if !ends || !g.live(w.Field) || slices.Contains(t.unsure, g.Doc.Writer) || len(out[g.Doc.Writer]) == policies.MaxRevokedItems {
				continue
			}
			item := writing.Ended{Grant: g.Doc.ID, Field: w.Field}
			if l, _, ok := o.written(g.Doc.Writer, w.Field); ok && l.Epoch == w.Epoch {
				item.Kept = l.Hash()
			}
			out[g.Doc.Writer] = append(out[g.Doc.Writer], item)
		}
	}
	return out
}

// buildWriteEnd makes the document that ends write grants of one writer, or nil if there is nothing to end.
func (o *Owner) buildWriteEnd(t *task, v *policies.VaultDocument) (*envelope.Envelope, error) {
	for writer, items := range o.endItems(t) {
		d := &writing.End{Header: policies.NewHeader("write-end", o.decided(t)), Audience: v.Vault, Owner: o.ID(), Link: o.nextLink(), Writer: writer, Items: items}
		for i := range o.state.Written {
			if w := &o.state.Written[i]; w.Author == writer {
				d.Last = writing.Last{Version: w.Manifest.Version, Manifest: w.Manifest.Hash}
			}
		}
		return policies.Sign(o.signing, d)
	}
	return nil, nil
}

// applyWriting takes over what a document about writers says, of this device's own making or another's. Doing it twice changes nothing.
func (o *Owner) applyWriting(e *envelope.Envelope, own bool) error {
	if e.Type == "write-grant" {
		g, err := policies.Decode[writing.Grant](e)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(o.state.Writers, func(have ownedWriteGrant) bool { return have.Hash == policies.Hash(e.Hash) }) {
			if !own {
				o.heedWriteGrant(g)
			}
			o.state.Writers = append(o.state.Writers, ownedWriteGrant{Hash: e.Hash, Doc: *g})
			for _, f := range g.Fields {
				o.raiseEpoch(f.Field, f.Epoch)
			}
		}
		return nil
	}
	d, err := policies.Decode[writing.End](e)
	if err != nil {
		return err
	}
	if !own {
		o.heedWriteEnd(d)
	}
	for _, item := range d.Items {
		for i := range o.state.Writers {
			if g := &o.state.Writers[i]; g.Doc.ID == item.Grant && g.live(item.Field) {
				g.Ended = append(g.Ended, endedWrite{item, d.Last.Version})
			}
		}
	}
	return nil
}

// writer finds the identity of a writer: a contact's, or fetched and compared with the id that this owner signed.
func (o *Owner) writer(ctx context.Context, author policies.AuthorID) (*policies.Identity, error) {
	first, err := o.firstOf(ctx, author)
	if err != nil {
		return nil, err
	}
	return o.newestKeys(ctx, policies.IdentityID(author), first)
}

// firstOf is the document that an identity of a writer began with.
func (o *Owner) firstOf(ctx context.Context, author policies.AuthorID) (*policies.Identity, error) {
	if c, ok := o.contact(policies.ReaderID(author)); ok {
		return openIdentity(c.Identity, c.ID)
	}
	_, doc, err := o.identity(ctx, policies.IdentityID(author))
	return doc, err
}

// verifyWriter checks the signature of a writer's manifest. It has no place in the writer's own chain, so a key of any time will do: that the vault accepted it its receipt says.
func (o *Owner) verifyWriter(ctx context.Context, author policies.AuthorID, e *envelope.Envelope) error {
	first, err := o.firstOf(ctx, author)
	if err != nil {
		return err
	}
	line, _, err := o.successions(ctx, succession.Begin(policies.IdentityID(author), first))
	if err != nil && !errors.Is(err, policies.CodeUnavailable) {
		return err
	}
	if line.Verify(e, 0) != nil {
		return fmt.Errorf("%w: it is no manifest of this writer", ErrUntrue)
	}
	return nil
}

// syncWritten fetches what a writer has published: its newest manifest, which it signed and the vault accepted, with all items that this commits to.
func (o *Owner) syncWritten(ctx context.Context, author policies.AuthorID) (err error) {
	defer func() { o.fetchedOf(author, err == nil && o.seenOf(author) > 0) }()
	fail := func(err error) error { return fmt.Errorf("fetching what was written: %w", err) }
	at := slices.IndexFunc(o.state.Written, func(w writtenBy) bool { return w.Author == author })
	known := writtenBy{Author: author}
	if at >= 0 {
		known = o.state.Written[at]
	}
	mirror := new(api.Mirror)
	err = o.wire.call(ctx, request{method: "GET", path: path(api.PathMirror, o.id.String()), query: url.Values{"author": {author.String()}}, out: mirror, login: true, limit: maxRead})
	if err != nil && !errors.Is(err, policies.CodeNotFound) {
		return fail(err)
	}
	if mirror.Manifest == nil {
		if known.Manifest.Version > 0 {
			return fail(fmt.Errorf("%w: it shows nothing any more", ErrRollback))
		}
		return nil
	}
	e, err := envelope.Parse(mirror.Manifest)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrUntrue, err))
	}
	if policies.Hash(e.Hash) == known.Manifest.Hash {
		return nil
	}
	if err := o.verifyWriter(ctx, author, e); err != nil {
		return fail(err)
	}
	m, err := policies.Decode[policies.Manifest](e)
	if err != nil || m.Owner != o.ID() || m.Author != author || m.Audience != o.state.Network.Vault {
		return fail(fmt.Errorf("%w: it is no manifest of this writer for this owner", ErrUntrue))
	}
	if m.Version <= known.Manifest.Version {
		return fail(fmt.Errorf("%w: manifest %d, after %d", ErrRollback, m.Version, known.Manifest.Version))
	}
	leaves := make([]policies.Leaf, len(mirror.Leaves))
	for i, raw := range mirror.Leaves {
		if leaves[i], err = policies.ParseLeaf(raw); err != nil || leaves[i].Owner != o.ID() || leaves[i].Author != author {
			return fail(fmt.Errorf("%w: a leaf of somebody else, or none", ErrUntrue))
		}
	}
	tree, err := policies.NewTree(leaves)
	if err != nil || tree.Size() != m.TreeSize || tree.Root() != m.Root {
		return fail(fmt.Errorf("%w: the leaves are not those of the manifest", ErrUntrue))
	}
	v, err := o.vault(ctx)
	if err != nil {
		return fail(err)
	}
	if mirror.Receipt == nil {
		return fail(fmt.Errorf("%w: no receipt of the manifest", ErrUntrue))
	}
	if err := o.receipt(ctx, v, mirror.Receipt, e.Hash, evidence.EntryManifest); err != nil {
		return fail(err)
	}
	when, _, err := evidence.ParseLogLeaf(mirror.Receipt.Evidence.Leaf)
	if err != nil {
		return fail(err)
	}
	next := writtenBy{Author: author, Manifest: manifestState{Version: m.Version, Hash: e.Hash, Raw: e.Raw}}
	for _, l := range tree.Leaves() {
		item := writtenItem{Leaf: l.Bytes(), At: when.UnixMilli()}
		for _, had := range known.Items {
			if slices.Equal(had.Leaf, item.Leaf) {
				item = had
			}
		}
		next.Items = append(next.Items, item)
	}
	if at < 0 {
		o.state.Written = append(o.state.Written, next)
	} else {
		o.state.Written[at] = next
	}
	return o.save()
}

// fetchedOf remembers whether this process has seen what a writer published last.
func (o *Owner) fetchedOf(author policies.AuthorID, seen bool) {
	if o.fetched == nil {
		o.fetched = map[policies.AuthorID]bool{}
	}
	o.fetched[author] = seen
}

// Written is a value that somebody else wrote for this owner and that the owner has neither adopted nor rejected.
type Written struct {
	Field   policies.Field    `json:"field"`
	Writer  policies.AuthorID `json:"writer"`
	Alias   string            `json:"alias,omitzero"` // this device's own name for the writer
	Version uint64            `json:"version"`
	Time    time.Time         `json:"time"` // when the vault had accepted it, at the latest
	Bytes   []byte            `json:"-"`
}

// Incoming fetches what others wrote and opens it, without what the owner has settled: adopted, rejected, or set anew since.
func (o *Owner) Incoming(ctx context.Context) (_ []Written, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.run(ctx); err != nil {
		return nil, err
	}
	if err := o.syncChain(ctx); err != nil {
		return nil, err
	}
	out := []Written{}
	for _, author := range o.writersOf(nil) {
		if err := o.syncWritten(ctx, author); err != nil {
			return nil, err
		}
		for i := range o.state.Written {
			if o.state.Written[i].Author != author {
				continue
			}
			for _, item := range o.state.Written[i].Items {
				l, err := policies.ParseLeaf(item.Leaf)
				if err != nil {
					return nil, fmt.Errorf("%w: %w", ErrState, err)
				}
				if item.Settled || !slices.Contains(o.writeSlots(l.Field), slotOf{l.Field, l.Epoch, l.Author}) {
					continue // the second: nobody reads it
				}
				value, err := o.openLeaf(ctx, &l)
				if err != nil {
					return nil, err
				}
				w := Written{Field: l.Field, Writer: author, Version: l.Version, Time: time.UnixMilli(item.At).UTC(), Bytes: value}
				if c, ok := o.contact(policies.ReaderID(author)); ok {
					w.Alias = c.Alias
				}
				out = append(out, w)
			}
		}
	}
	return out, nil
}

// ErrNewer: since this device last looked, the writer wrote something else.
var ErrNewer = errors.New("something newer was written meanwhile; look at it first")

// Adopt publishes what a writer wrote in a field as the owner's own newest value: what [Owner.Incoming] showed last, or, if that was never asked on this device, what is
// there. [ErrNewer]: it is not that any more.
func (o *Owner) Adopt(ctx context.Context, writer policies.AuthorID, f policies.Field) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	before, _, seen := o.written(writer, f)
	l, err := o.wrote(ctx, writer, f)
	if err != nil {
		return err
	}
	if seen && l != before {
		return fmt.Errorf("%s: %w", f, ErrNewer)
	}
	b, err := o.openLeaf(ctx, &l)
	if err != nil {
		return err
	}
	defer clear(b)
	return o.set(ctx, Change{Field: f, Value: b})
}

// Reject publishes the owner's own value of a field again, as the newest. [ErrNoField]: there is none; set one, or end the permission to write.
func (o *Owner) Reject(ctx context.Context, writer policies.AuthorID, f policies.Field) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if _, err := o.wrote(ctx, writer, f); err != nil {
		return err
	}
	s, ok := o.view()[f]
	if !ok {
		return fmt.Errorf("%s: %w", f, ErrNoField)
	}
	b, err := o.openLeaf(ctx, &s.leaf)
	if err != nil {
		return err
	}
	defer clear(b)
	return o.set(ctx, Change{Field: f, Value: b})
}

// wrote is the newest item of a field by a writer.
func (o *Owner) wrote(ctx context.Context, writer policies.AuthorID, f policies.Field) (policies.Leaf, error) {
	if err := o.run(ctx); err != nil {
		return policies.Leaf{}, err
	}
	if err := o.syncWritten(ctx, writer); err != nil {
		return policies.Leaf{}, err
	}
	l, _, ok := o.written(writer, f)
	if !ok {
		return l, fmt.Errorf("%w: this contact wrote nothing in %s", policies.CodeNotFound, f)
	}
	return l, nil
}

// overtake marks what this device has seen of others' values of a field as settled: the owner has set a newer one.
func (o *Owner) overtake(f policies.Field) {
	for i := range o.state.Written {
		for j := range o.state.Written[i].Items {
			item := &o.state.Written[i].Items[j]
			if l, err := policies.ParseLeaf(item.Leaf); err == nil && l.Field == f {
				item.Settled = true
			}
		}
	}
}

// WriterInfo is one field that somebody else may write, as this device knows it.
type WriterInfo struct {
	Writer  policies.AuthorID   `json:"writer"`
	Alias   string              `json:"alias,omitzero"`
	Field   policies.Field      `json:"field"`
	Purpose string              `json:"purpose"`
	Expires time.Time           `json:"expires"`
	Status  string              `json:"status"` // "in force", "expired", "ended", "closed" (the writer closed their account), "pending", "NOT STOPPED YET"
	Grant   policies.DocumentID `json:"grant,omitzero"`
}

// Writers lists who may write what, newest last; without all only what is in force or on its way.
func (o *Owner) Writers(all bool) []WriterInfo {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []WriterInfo
	add := func(info WriterInfo) {
		if c, ok := o.contact(policies.ReaderID(info.Writer)); ok {
			info.Alias = c.Alias
		}
		if all || info.Status != "ended" && info.Status != "expired" && info.Status != "closed" {
			out = append(out, info)
		}
	}
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		for _, w := range g.Doc.Fields {
			info := WriterInfo{Writer: g.Doc.Writer, Field: w.Field, Purpose: g.Doc.Purpose, Expires: time.Unix(g.Doc.Expires, 0).UTC(), Grant: g.Doc.ID, Status: "in force"}
			stopping := slices.ContainsFunc(o.state.Tasks, func(t task) bool {
				return t.Kind == taskEndWrite && t.Reason == policies.ReasonWithdrawn && policies.AuthorID(t.Reader) == g.Doc.Writer && (len(t.Fields) == 0 || slices.Contains(t.Fields, w.Field))
			})
			_, gone := o.gone(policies.ReaderID(g.Doc.Writer))
			switch {
			case !g.live(w.Field):
				info.Status = "ended"
			case gone:
				info.Status = "closed"
			case stopping:
				info.Status = "NOT STOPPED YET"
			case o.now().Unix() >= g.Doc.Expires:
				info.Status = "expired"
			}
			add(info)
		}
	}
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if t.Cancelled || t.Kind != taskWrite && (t.Kind != taskFollow || t.Reader.IsZero()) {
			continue
		}
		for _, f := range t.Fields {
			add(WriterInfo{Writer: policies.AuthorID(t.Reader), Field: f, Purpose: t.Terms.Purpose, Expires: time.Unix(t.Terms.Expires, 0).UTC(), Status: "pending"})
		}
	}
	return out
}
