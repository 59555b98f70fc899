package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Owner is a person's device. Its methods may be called from several goroutines; they take turns.
type Owner struct {
	*device
	store MirrorStore

	renewed []Contact // readers whose grants were renewed, because they replaced their keys

	former  *pre.Root                   // before the newest succession, while anything is under its keys
	earlier []*pre.Root                 // and those before it, newest first: what others wrote stays under the root of its time until they write again
	under   map[policies.Hash]*pre.Root // by the hash of a leaf: which of these it is under, as found out before

	mu      sync.Mutex // guards state and reader; held over a whole operation, since operations are links of one chain
	state   ownerState
	unsaved bool  // state has something that is not stored: see saveSoon
	ahead   ahead // what was made before its turn

	reader  *Reader   // this person as a reader of other people, once it was needed
	givenUp []GivenUp // by readers, heard of since this device was opened

	fetched map[policies.AuthorID]bool // writers of whom this process has what they published last, if they published something

	departed map[policies.ReaderID]bool // contacts of whom it was told since this device was opened that they closed their accounts

	looked time.Time // when this process last looked around, see lookAround
	aside  error     // what failed then

	needless policies.DocumentID // the stroke of the newest thaw that had nothing to end
}

// ownerState is what an owner's device must not lose. Everything else follows from the root and the chain.
type ownerState struct {
	base
	// Applied is the newest document whose content is in this state; Known the newest link that a verified receipt vouches for. They
	// differ only when a revocation was signed on top of another device's documents that the storefront did not show.
	Applied  position         `json:"applied"`
	Known    position         `json:"known"`
	Manifest manifestState    `json:"manifest,omitzero"`
	Leaves   [][]byte         `json:"leaves,omitzero"` // of the manifest, in tree order
	Epochs   []epochFloor     `json:"epochs,omitzero"`
	Grants   []ownedGrant     `json:"grants,omitzero"`
	Contacts []readerContact  `json:"contacts,omitzero"`
	Codes    []issuedCode     `json:"codes,omitzero"`
	Tasks    []task           `json:"tasks,omitzero"`
	Closing  jsontext.Value   `json:"closing,omitzero"` // the closure, once it was sent
	Closed   bool             `json:"closed,omitzero"`
	Account  accountState     `json:"account,omitzero"`
	Untold   []jsontext.Value `json:"untold,omitzero"` // grants and revocations in force that the storefront has not been told
	Mail     ownerMail        `json:"mail,omitzero"`
	Side     jsontext.Value   `json:"side,omitzero"`   // readerState of this person as a reader of other people
	Pieces   []piece          `json:"pieces,omitzero"` // what other people let this one read

	Writers   []ownedWriteGrant `json:"writers,omitzero"`
	Written   []writtenBy       `json:"written,omitzero"`   // by others
	Former    []byte            `json:"former,omitzero"`    // the root before, while anything is under its keys
	Earlier   [][]byte          `json:"earlier,omitzero"`   // those before it
	Moved     bool              `json:"moved,omitzero"`     // nothing of this owner's own is; what others wrote may be until they write again
	Replacing *replacement      `json:"replacing,omitzero"` // begun, and the succession is not in force yet
	Announced *announced        `json:"announced,omitzero"`
	GivenUpTo uint64            `json:"given_up_to,omitzero"` // number of the newest of what readers gave up that was heard of

	Restored bool `json:"restored,omitzero"` // and has not looked yet for what was left undone

	Overtaken []overtakenWish `json:"overtaken,omitzero"` // what waited and was not given, because another device decided otherwise later; the person is not told yet

	Frozen int64 `json:"frozen,omitzero"` // when all reading was stopped, Unix seconds of the vault's log
	Thawed int64 `json:"thawed,omitzero"` // time of the newest thaw of the chain

	GivenUpEarly []succession.Renunciation `json:"given_up_early,omitzero"` // what of it is of grants that this device has not met yet

	Gone []goneReader `json:"gone,omitzero"` // readers and writers who closed their accounts
}

// goneReader is somebody whom this owner let read or write, and whose account is closed, as the vault's receipt says.
type goneReader struct {
	ID       policies.ReaderID `json:"id"`
	Document policies.Hash     `json:"document"` // the closure
	Entry    uint64            `json:"entry"`    // of the key-use log
}

type position struct {
	Seq  uint64        `json:"seq"`
	Hash policies.Hash `json:"hash"`
}

type manifestState struct {
	Version uint64         `json:"version"`
	Hash    policies.Hash  `json:"hash"`
	Raw     jsontext.Value `json:"raw"`
}

// epochFloor is the least epoch that a field without a leaf may begin with: above every epoch that a withdrawn grant knew.
type epochFloor struct {
	Field policies.Field `json:"field"`
	Epoch uint64         `json:"epoch"`
}

type ownedGrant struct {
	Hash  policies.Hash          `json:"hash"`
	Doc   policies.Grant         `json:"doc"`
	Ended []policies.RevokedItem `json:"ended,omitzero"`
	Gone  []policies.RevokedItem `json:"gone,omitzero"` // those of them that ended with the reader's account
}

// live reports whether a field of the grant is in force as far as this device knows; time is not asked.
func (g *ownedGrant) live(f *policies.GrantedField) bool {
	return !slices.Contains(g.Ended, policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author})
}

type readerContact struct {
	Alias        string              `json:"alias"`
	ID           policies.IdentityID `json:"id"`
	Identity     jsontext.Value      `json:"identity"`
	Relationship jsontext.Value      `json:"relationship"` // verified when it came
	Nonce        policies.Nonce      `json:"nonce"`
	Successions  []jsontext.Value    `json:"successions,omitzero"` // verified when they came
	Proof        nameProof           `json:"proof,omitzero"`
	Invitations  []policies.Hash     `json:"invitations,omitzero"` // hashes of the tokens of those that were accepted from it
}

// issuedCode is a nonce that this owner gave out. Once a reader has used it, no other may.
type issuedCode struct {
	Nonce  policies.Nonce      `json:"nonce"`
	Reader policies.IdentityID `json:"reader,omitzero"`
	Time   int64               `json:"time"`
}

// InitOwner draws a root, stores it, and then enrols the identity. When the last part fails, the returned Owner is usable all the
// same and the error says why: Sync tries again.
func InitOwner(ctx context.Context, store MirrorStore, network Network, o Options) (*Owner, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	own := &Owner{store: store}
	var err error
	if own.state.base, err = newBase(roleOwner, network, policies.KindPerson, "", now()); err != nil {
		return nil, err
	}
	if err := own.open(o); err != nil {
		return nil, err
	}
	own.state.Applied = position{Hash: policies.Hash(own.id)}
	own.state.Known = own.state.Applied
	if err := own.save(); err != nil {
		return nil, err
	}
	return own, own.Sync(ctx)
}

// OpenOwner opens a stored owner. It uses no network.
func OpenOwner(store MirrorStore, o Options) (*Owner, error) {
	own := &Owner{store: store}
	if err := loadState(store, roleOwner, &own.state); err != nil {
		return nil, err
	}
	return own, own.open(o)
}

func (o *Owner) open(opts Options) (err error) {
	if o.device, err = newDevice(&o.state.base, opts); err != nil || o.state.Former == nil {
		return err
	}
	if o.former, err = pre.ParseRoot(o.state.Former); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, raw := range o.state.Earlier {
		root, err := pre.ParseRoot(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		o.earlier = append(o.earlier, root)
	}
	return nil
}

func (o *Owner) save() error {
	o.trust.store(&o.state.base)
	err := saveState(o.store, &o.state)
	o.unsaved = o.unsaved && err != nil
	return err
}

// saveSoon leaves it to the next save to store what changed: there is one before a document is made and sent, and one when a run ends. Killed before, the device
// does the same again: what was accepted is answered with the same receipt, and what was planned was not sent.
func (o *Owner) saveSoon() { o.unsaved = true }

// Close forgets the keys. Everything was saved when it happened, but for what an operation that failed saw of the key-use log.
func (o *Owner) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.trust.unsaved() {
		_ = o.save() // nobody is left to be told; what is lost is seen again
	}
	o.closeSide()
	o.device.close()
	o.forgetFormer()
	o.state.Account.zero()
	if r := o.state.Replacing; r != nil {
		r.zero()
	}
}

// ID is the owner's id.
func (o *Owner) ID() policies.OwnerID { return policies.OwnerID(o.id) }

func (o *Owner) author() policies.AuthorID { return policies.AuthorID(o.id) }

// Network is where storefront and vault are.
func (o *Owner) Network() Network { return o.state.Network }

// Vault is the vault document in use: what the vault says of its tokens, their grades, and whether it is a development set-up.
func (o *Owner) Vault(ctx context.Context) (*policies.VaultDocument, error) { return o.vault(ctx) }

// FieldInfo describes one field that the owner has.
type FieldInfo struct {
	Field   policies.Field `json:"field"`
	Version uint64         `json:"version"`
	Epoch   uint64         `json:"epoch"`
	Pending bool           `json:"pending,omitzero"` // not published yet
}

// Fields lists what the owner has, published or waiting to be, by name.
func (o *Owner) Fields() []FieldInfo {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []FieldInfo
	for name, s := range o.view() {
		out = append(out, FieldInfo{Field: name, Version: s.leaf.Version, Epoch: s.leaf.Epoch, Pending: s.pending})
	}
	slices.SortFunc(out, func(a, b FieldInfo) int { return strings.Compare(string(a.Field), string(b.Field)) })
	return out
}

type seenLeaf struct {
	leaf    policies.Leaf
	pending bool
}

// view is the published leaves with what waits to be published on top.
func (o *Owner) view() map[policies.Field]seenLeaf {
	out := map[policies.Field]seenLeaf{}
	for _, l := range o.leaves() {
		out[l.Field] = seenLeaf{leaf: l}
	}
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		for _, raw := range t.Set {
			if l, err := policies.ParseLeaf(raw); err == nil {
				out[l.Field] = seenLeaf{l, true}
			}
		}
		for _, f := range t.Remove {
			delete(out, f)
		}
	}
	return out
}

// leaves parses the leaves of the manifest. They were checked against its root when they came.
func (o *Owner) leaves() []policies.Leaf {
	out := make([]policies.Leaf, 0, len(o.state.Leaves))
	for _, raw := range o.state.Leaves {
		if l, err := policies.ParseLeaf(raw); err == nil {
			out = append(out, l)
		}
	}
	return out
}

// Get opens a field from the mirror. It needs no network but for a ciphertext that the mirror lacks.
func (o *Owner) Get(ctx context.Context, f policies.Field) (_ []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	s, ok := o.view()[f]
	if !ok {
		return nil, fmt.Errorf("%s: %w", f, ErrNoField)
	}
	return o.openLeaf(ctx, &s.leaf)
}

func (o *Owner) openLeaf(ctx context.Context, l *policies.Leaf) ([]byte, error) {
	ciphertext, err := o.ciphertext(ctx, l)
	if err != nil {
		return nil, err
	}
	key, err := o.keyOf(l)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	value, err := key.Open(l, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", l.Field, err)
	}
	return value, nil
}

// ciphertext takes an item from the mirror, or from the storefront, whose bytes must have the leaf's hash.
func (o *Owner) ciphertext(ctx context.Context, l *policies.Leaf) ([]byte, error) {
	if data, err := o.store.Item(l.CiphertextHash); err == nil {
		return data, nil
	}
	var data []byte
	if err := o.wire.call(ctx, request{method: "GET", path: path(api.PathItem, o.id.String(), l.Hash().String()), out: &data, login: true}); err != nil {
		return nil, fmt.Errorf("fetching %s: %w", l.Field, err)
	}
	if policies.HashKey(data) != l.CiphertextHash {
		return nil, fmt.Errorf("fetching %s: %w: the ciphertext is not the one that was published", l.Field, ErrUntrue)
	}
	return data, o.store.PutItem(l.CiphertextHash, data)
}

// Change is a new value of a field.
type Change struct {
	Field policies.Field
	Value []byte
}

// maxPublication is how many bytes of ciphertext go into one publication: with base64 and leaves it stays under api.MaxBody.
const maxPublication = 8 << 20

// Set seals values and publishes them, all in one manifest if they fit. They are in the mirror, and will be published, even if the
// error is that the storefront cannot be reached.
func (o *Owner) Set(ctx context.Context, changes ...Change) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.set(ctx, changes...)
}

func (o *Owner) set(ctx context.Context, changes ...Change) error {
	view := o.view()
	batch, size := task{Kind: taskPublish, Stroke: policies.NewDocumentID()}, 0
	for i, c := range changes {
		if slices.ContainsFunc(changes[:i], func(other Change) bool { return other.Field == c.Field }) {
			return fmt.Errorf("%w: %s is set twice", policies.ErrMalformed, c.Field)
		}
		slot := policies.Slot{Owner: o.ID(), Field: c.Field, Epoch: o.firstEpoch(c.Field), Author: o.author()}
		if s, ok := view[c.Field]; ok {
			slot.Epoch = s.leaf.Epoch
		}
		leaf, ciphertext, err := o.seal(slot, o.nextManifest(), c.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Field, err)
		}
		// Ciphertext first: a task never names an item that is not on disk.
		if err := o.store.PutItem(leaf.CiphertextHash, ciphertext); err != nil {
			return err
		}
		if size += len(ciphertext); size > maxPublication && len(batch.Set) > 0 {
			o.state.Tasks = append(o.state.Tasks, batch)
			batch, size = task{Kind: taskPublish, Stroke: policies.NewDocumentID()}, len(ciphertext)
		}
		batch.Set = append(batch.Set, leaf.Bytes())
		o.overtake(c.Field)
	}
	if len(batch.Set) == 0 {
		return nil
	}
	o.state.Tasks = append(o.state.Tasks, batch)
	return o.saveAndRun(ctx)
}

// seal seals a value as the version of a field that has the number of the manifest which first carries it. Manifest versions
// are never used twice, so neither are those of a field, even one that was removed and is set again by a device that never knew it.
func (o *Owner) seal(slot policies.Slot, version uint64, value []byte) (policies.Leaf, []byte, error) {
	root := o.rootFor(slot)
	key, err := root.FieldKey(slot)
	if err != nil {
		return policies.Leaf{}, nil, err
	}
	defer key.Zero()
	leaf, ciphertext, err := key.Seal(version, value, nil)
	o.isUnder(&leaf, root)
	return leaf, ciphertext, err
}

// nextManifest is the version that the last publication in the queue will have, if nothing comes between.
func (o *Owner) nextManifest() uint64 {
	n := o.state.Manifest.Version + 1
	for i := range o.state.Tasks {
		if o.state.Tasks[i].Kind == taskPublish {
			n++
		}
	}
	return n
}

func (o *Owner) firstEpoch(f policies.Field) uint64 {
	for _, e := range o.state.Epochs {
		if e.Field == f {
			return e.Epoch
		}
	}
	return 1
}

// Remove takes fields out of what is published. Their grants stay: if the field is set again, they hold again. Whoever means that
// nobody shall read it revokes.
func (o *Owner) Remove(ctx context.Context, fields ...policies.Field) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	view := o.view()
	for _, f := range fields {
		if _, ok := view[f]; !ok {
			return fmt.Errorf("%s: %w", f, ErrNoField)
		}
	}
	o.state.Tasks = append(o.state.Tasks, task{Kind: taskPublish, Stroke: policies.NewDocumentID(), Remove: fields})
	return o.saveAndRun(ctx)
}

// Rotate moves a field to a new key: the value stays, remaining readers get new grants, and keys of the old epoch are worth nothing for
// what is written from now on.
func (o *Owner) Rotate(ctx context.Context, fields ...policies.Field) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	view := o.view()
	for _, f := range fields {
		if _, ok := view[f]; !ok {
			return fmt.Errorf("%s: %w", f, ErrNoField)
		}
	}
	o.state.Tasks = append(o.state.Tasks, task{Kind: taskRotate, Stroke: policies.NewDocumentID(), Fields: fields})
	return o.saveAndRun(ctx)
}

// A publication that begins an epoch of a field, because it rotates it or sets it anew after it was gone, comes after grants for that epoch to everyone
// who may read the field, so that nobody who stays ever sees an error, and before the end of their old ones. What is needed is found out
// when the publication's turn comes, each time: another device may have granted, revoked or rotated since.

// carried is a field that a reader may read, as its newest grant says.
type carried struct {
	reader policies.ReaderID
	field  policies.Field
	terms  terms
	seq    uint64
	next   bool // it has a grant for the next epoch already
}

// standing lists who may read some fields, grant by grant in their order.
func (o *Owner) standing(fields []policies.Field) []carried {
	epochs := map[policies.Field]uint64{} // of their next items
	for _, f := range fields {
		epochs[f] = 1
	}
	for _, e := range o.state.Epochs {
		if _, ok := epochs[e.Field]; ok {
			epochs[e.Field] = e.Epoch
		}
	}
	for _, l := range o.leaves() {
		if _, ok := epochs[l.Field]; ok {
			epochs[l.Field] = l.Epoch + 1
		}
	}
	var out []carried
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			epoch, ok := epochs[f.Field]
			if !ok || !g.live(f) || f.Author != o.author() || o.departed[g.Doc.Reader] {
				continue
			}
			c := carried{reader: g.Doc.Reader, field: f.Field, seq: g.Doc.Seq, next: f.Epoch == epoch, terms: terms{
				Purpose: g.Doc.Purpose, NotBefore: g.Doc.NotBefore, Expires: g.Doc.Expires, ReadsPerDay: g.Doc.Limits.ReadsPerDay, Custody: g.Doc.Custody,
			}}
			at := slices.IndexFunc(out, func(have carried) bool { return have.reader == c.reader && have.field == c.field })
			switch {
			case at < 0:
				out = append(out, c)
			case c.seq > out[at].seq:
				out[at] = c
			}
		}
	}
	// What is over took the place of what was granted before it all the same.
	return slices.DeleteFunc(out, func(c carried) bool { return o.now().Unix() >= c.terms.Expires })
}

// carryOver is the grants that a publication needs before it.
func (o *Owner) carryOver(t *task) []task {
	leaves := map[policies.Field]bool{}
	for _, l := range o.leaves() {
		leaves[l.Field] = true
	}
	fields := slices.DeleteFunc(slices.Clone(t.Rotate), func(f policies.Field) bool { return !leaves[f] })
	for _, raw := range t.Set {
		if l, err := policies.ParseLeaf(raw); err == nil && !leaves[l.Field] && !t.Anew {
			fields = append(fields, l.Field)
		}
	}
	var out []task
	var seqs []uint64
	for _, c := range o.standing(fields) {
		if c.next {
			continue
		}
		if at := slices.Index(seqs, c.seq); at >= 0 {
			out[at].Fields = append(out[at].Fields, c.field)
			continue
		}
		out = append(out, task{Kind: taskGrant, Stroke: t.Stroke, Reader: c.reader, Fields: []policies.Field{c.field}, NextEpoch: true, Terms: c.terms})
		seqs = append(seqs, c.seq)
	}
	return out
}

// toCarry reports whether a grant for the next epoch is still what the publication behind it needs.
func (o *Owner) toCarry(t *task) bool {
	for i := range o.state.Tasks {
		p := &o.state.Tasks[i]
		if p.Kind != taskPublish || p.Stroke != t.Stroke {
			continue
		}
		for _, c := range o.carryOver(p) {
			if c.Reader == t.Reader && c.Terms == t.Terms && len(without(t.Fields, c.Fields)) == 0 {
				return true
			}
		}
	}
	return false
}

// Code draws a contact code for one reader: the owner's id and a nonce. It is handed over outside the storefront, and serves one reader.
func (o *Owner) Code() (links.Contact, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := links.Contact{Role: "owner", ID: o.id, Nonce: policies.NewNonce()}
	o.state.Codes = append(o.state.Codes, issuedCode{Nonce: c.Nonce, Time: o.now().Unix()})
	return c, o.save()
}

// Contact is a party that was met.
type Contact struct {
	Alias string              `json:"alias,omitzero"` // this device's own name for it
	ID    policies.IdentityID `json:"id"`
	Kind  policies.Kind       `json:"kind"`
	Name  string              `json:"name,omitzero"` // what it calls itself: UNVERIFIED, unless one of these says otherwise

	VouchedUntil time.Time `json:"vouched_until,omitzero"` // the operator vouches for the name, until then
	Domain       string    `json:"domain,omitzero"`        // the website of this domain says that the contact is its own
	DomainUntil  time.Time `json:"domain_until,omitzero"`
	LooksLike    string    `json:"looks_like,omitzero"`    // the unverified name looks like the verified one of this contact
	Mixed        bool      `json:"mixed_letters,omitzero"` // the unverified name is of letters that are not used together, or cannot all be seen

	Muted   bool `json:"muted,omitzero"`   // its requests are hidden
	Blocked bool `json:"blocked,omitzero"` // what it sends is thrown away
}

// Verified reports whether somebody besides the contact itself says that the name is its own: the operator, whose voucher is for the name, or the owner of a domain.
func (c Contact) Verified() bool { return !c.VouchedUntil.IsZero() || c.Domain != "" }

// Connect does the owner's half of meeting a reader: it fetches the relationship that the reader made out of one of this owner's
// codes, and checks signature, both ids and the nonce. The code names the reader by its id; names are never asked.
func (o *Owner) Connect(ctx context.Context, code links.Contact, alias string) (_ Contact, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if code.Role != "reader" {
		return Contact{}, fmt.Errorf("%w: this is not the code of a reader", policies.ErrMalformed)
	}
	if err := o.freeAlias(alias, code.ID); err != nil {
		return Contact{}, err
	}
	if err := o.run(ctx); err != nil {
		return Contact{}, err
	}
	c, err := o.findRelationship(ctx, code.ID, func(_ policies.Hash, r *policies.Relationship) bool {
		return slices.ContainsFunc(o.state.Codes, func(i issuedCode) bool {
			return i.Nonce == r.Nonce && (i.Reader.IsZero() || i.Reader == code.ID)
		})
	})
	if err != nil {
		return Contact{}, err
	}
	if err := o.refuseAlike(&c); err != nil {
		return Contact{}, err
	}
	c.Alias = alias
	for i := range o.state.Codes {
		if o.state.Codes[i].Nonce == c.Nonce {
			o.state.Codes[i].Reader = code.ID
		}
	}
	o.putContact(c)
	if err := o.save(); err != nil {
		return Contact{}, err
	}
	return o.shown(&c), nil
}

// findRelationship looks among the relationships that name this owner for the newest of a reader that its newest key signed and that is wanted.
func (o *Owner) findRelationship(ctx context.Context, reader policies.IdentityID, wanted func(policies.Hash, *policies.Relationship) bool) (readerContact, error) {
	identity, doc, err := o.identity(ctx, reader)
	if errors.Is(err, policies.CodeNotIntroduced) { // it has signed nothing for this owner
		return readerContact{}, fmt.Errorf("%w: %w", ErrNotConnected, err)
	} else if err != nil {
		return readerContact{}, err
	}
	line, successions, err := o.successions(ctx, succession.Begin(reader, doc))
	if err != nil {
		return readerContact{}, err
	}
	key, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return readerContact{}, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	var list api.Envelopes
	with := url.Values{"with": {reader.String()}} // among all of them, strangers' could push the reader's to a later page
	if err := o.wire.call(ctx, request{method: "GET", path: api.PathRelationships, query: with, out: &list, login: true}); err != nil {
		return readerContact{}, fmt.Errorf("fetching relationships: %w", err)
	}
	c, newest := readerContact{ID: reader, Identity: identity, Successions: successions}, int64(0)
	for _, raw := range list.Envelopes {
		e, err := envelope.Parse(raw)
		if err != nil || e.Type != "relationship" {
			continue
		}
		claim, err := policies.Decode[policies.Relationship](e)
		if err != nil || claim.Reader != policies.ReaderID(reader) || claim.Owner != o.ID() {
			continue
		}
		r, err := policies.Open[policies.Relationship](e, key)
		if err != nil || r.Audience != o.state.Network.Vault || !wanted(policies.Hash(e.Hash), r) || r.Time < newest {
			continue
		}
		c.Relationship, c.Nonce, newest = raw, r.Nonce, r.Time
	}
	if c.Relationship == nil {
		return readerContact{}, ErrNotConnected
	}
	_ = o.renewVoucher(ctx, &c) // what cannot be verified now is shown as unverified
	return c, nil
}

func (o *Owner) freeAlias(alias string, id policies.IdentityID) error {
	for i := range o.state.Contacts {
		if c := &o.state.Contacts[i]; alias != "" && c.Alias == alias && c.ID != id {
			return fmt.Errorf("%w: the alias %q is taken by another contact", policies.ErrMalformed, alias)
		}
	}
	return nil
}

func (o *Owner) putContact(c readerContact) {
	for i := range o.state.Contacts {
		if have := &o.state.Contacts[i]; have.ID == c.ID {
			if c.Alias == "" {
				c.Alias = have.Alias
			}
			if c.Proof.Voucher == nil {
				c.Proof.Voucher = have.Proof.Voucher
			}
			c.Proof.Domain, c.Proof.Until = have.Proof.Domain, have.Proof.Until
			for _, one := range have.Invitations {
				if !slices.Contains(c.Invitations, one) {
					c.Invitations = append(c.Invitations, one)
				}
			}
			*have = c
			return
		}
	}
	o.state.Contacts = append(o.state.Contacts, c)
}

func (c *readerContact) public() Contact {
	out := Contact{Alias: c.Alias, ID: c.ID}
	if doc, err := openIdentity(c.Identity, c.ID); err == nil {
		out.Kind, out.Name = doc.Kind, doc.Name
	}
	return out
}

// Contacts lists the readers that were met.
func (o *Owner) Contacts() []Contact {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Contact, len(o.state.Contacts))
	for i := range o.state.Contacts {
		out[i] = o.shown(&o.state.Contacts[i])
	}
	return out
}

// Find looks a reader up by alias or id.
func (o *Owner) Find(nameOrID string) (policies.ReaderID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.state.Contacts {
		if c := &o.state.Contacts[i]; c.Alias == nameOrID && nameOrID != "" || c.ID.String() == nameOrID {
			return policies.ReaderID(c.ID), nil
		}
	}
	return policies.ReaderID{}, fmt.Errorf("%q: %w", nameOrID, ErrNoContact)
}

func (o *Owner) contact(reader policies.ReaderID) (*readerContact, bool) {
	for i := range o.state.Contacts {
		if o.state.Contacts[i].ID == policies.IdentityID(reader) {
			return &o.state.Contacts[i], true
		}
	}
	return nil, false
}

// identity is a contact's, with the newest keys that this device knows.
func (c *readerContact) identity() (*policies.Identity, error) {
	doc, err := openIdentity(c.Identity, c.ID)
	if err != nil {
		return nil, err
	}
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil {
		return nil, err
	}
	h := line.Newest()
	doc.SigningKey, doc.KEMKey, doc.LoginKey, doc.RecoveryHash = h.SigningKey, h.KEMKey, h.LoginKey, h.Recovery
	return doc, nil
}

// relationship opens the stored relationship of a contact again: the reader's key for this owner, and the document's hash.
func (c *readerContact) relationship() (*policies.Relationship, policies.Hash, error) {
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	if line.ID != c.ID {
		return nil, policies.Hash{}, fmt.Errorf("%w: a contact with another's identity", ErrState)
	}
	key, err := envelope.ParsePublicKey(line.Newest().SigningKey)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	e, err := envelope.Parse(c.Relationship)
	if err != nil {
		return nil, policies.Hash{}, err
	}
	r, err := policies.Open[policies.Relationship](e, key)
	return r, policies.Hash(e.Hash), err
}
