package client

import (
	"context"
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

// Reader is a business's, or another person's, side: it reads what owners granted. It is safe for concurrent use.
type Reader struct {
	*device
	store Store

	replaceMu sync.Mutex // held while a replacement goes on, so that one process is at it once

	mu      sync.Mutex // guards everything below; never held over the network
	state   readerState
	dirty   bool
	settled bool // enrolled, and every relationship posted
	owners  map[policies.OwnerID]*knownOwner
	invited map[policies.Hash]policies.OwnerID    // who came by which invitation
	authors map[policies.AuthorID]succession.Line // of others who write for owners

	sessionMu sync.Mutex // guards session, and is held while opening one so that one serves all
	session   *session
	grantsMu  sync.Mutex // held while fetching grants, so that one fetch serves all
	mailMu    sync.Mutex // held while sending messages, so that each goes out once
	writeMu   sync.Mutex // held over a whole Write, since manifests follow one another; guards state.Writing's elements
}

type readerState struct {
	base
	Owners []ownerContact `json:"owners,omitzero"`
	Grants []heldGrant    `json:"grants,omitzero"` // verified when they came

	Chain     position           `json:"chain,omitzero"`     // of this reader's own documents: suspensions, successions
	Replacing *replacement       `json:"replacing,omitzero"` // begun, and not in force yet
	Waiting   []policies.OwnerID `json:"waiting,omitzero"`   // who had granted something before the newest replacement, and has not renewed it
	Mail      readerMail         `json:"mail,omitzero"`

	Writing  []*writingFor    `json:"writing,omitzero"`
	GivingUp []jsontext.Value `json:"giving_up,omitzero"` // renunciations that are not acknowledged yet
}

type ownerContact struct {
	Alias     string           `json:"alias,omitzero"`
	ID        policies.OwnerID `json:"id"`
	Identity  jsontext.Value   `json:"identity"`
	Relations []relation       `json:"relations"`
	Mark      mark             `json:"mark,omitzero"`
	Marks     []authorMark     `json:"marks,omitzero"`   // of others who write for the owner
	Purpose   string           `json:"purpose,omitzero"` // of the newest grant seen
	Invited   policies.Hash    `json:"invited,omitzero"` // of the invitation by which the owner came

	Successions []jsontext.Value `json:"successions,omitzero"` // verified when they came
}

// relation is one relationship document of this reader with an owner. A reader connects anew with another nonce, and so another key.
type relation struct {
	Nonce policies.Nonce `json:"nonce"`
	Hash  policies.Hash  `json:"hash"`
	Raw   jsontext.Value `json:"raw,omitzero"` // until it is posted
}

// mark is the newest manifest seen: the high-water mark below which nothing is believed.
type mark struct {
	Version uint64        `json:"version"`
	Hash    policies.Hash `json:"hash"`
}

// authorMark is the mark of an author who is not the owner.
type authorMark struct {
	Author policies.AuthorID `json:"author"`
	mark
}

// of is the mark of an author.
func (c *ownerContact) of(author policies.AuthorID) *mark {
	if author == policies.AuthorID(c.ID) {
		return &c.Mark
	}
	for i := range c.Marks {
		if c.Marks[i].Author == author {
			return &c.Marks[i].mark
		}
	}
	c.Marks = append(c.Marks, authorMark{Author: author})
	return &c.Marks[len(c.Marks)-1].mark
}

type heldGrant struct {
	Hash policies.Hash  `json:"hash"`
	Doc  policies.Grant `json:"doc"`
}

// knownOwner is what a Reader keeps in memory of one owner.
type knownOwner struct {
	contact   *ownerContact
	line      succession.Line
	manifests []verifiedManifest // the newest few
	grants    map[policies.Hash]*verifiedGrant
	order     map[writtenField]place // where the items that were read last stand in the vault's order
}

// writtenField is a field by one author.
type writtenField struct {
	field  policies.Field
	author policies.AuthorID
}

// place is a version and where it stands in the vault's order.
type place struct{ version, accepted uint64 }

type verifiedManifest struct {
	hash policies.Hash
	doc  *policies.Manifest
}

type verifiedGrant struct {
	hash  policies.Hash
	doc   *policies.Grant
	stale bool // the storefront does not list it any more: not worth storing

	once   sync.Once // guards secret
	secret *pre.GrantSecret
	err    error
}

// maxManifests is how many manifests of one owner are kept: reads under way may still be under an older one.
const maxManifests = 4

// maxOffered is how many grants a storefront may offer a reader.
const maxOffered = 1 << 20

// InitReader draws a root, stores it, and then enrols the identity. A business's name is a label that others see as unverified; a person who reads
// has none. When enrolling fails, the returned Reader is usable all the same and the error says why; it is tried again with the next call.
func InitReader(ctx context.Context, store Store, network Network, kind policies.Kind, name string, o Options) (*Reader, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	r := &Reader{store: store}
	var err error
	if r.state.base, err = newBase(roleReader, network, kind, name, now()); err != nil {
		return nil, err
	}
	if err := r.open(o); err != nil {
		return nil, err
	}
	if err := r.save(); err != nil {
		return nil, err
	}
	return r, r.ready(ctx)
}

// OpenReader opens a stored reader. It uses no network.
func OpenReader(store Store, o Options) (*Reader, error) {
	r := &Reader{store: store}
	if err := loadState(store, roleReader, &r.state); err != nil {
		return nil, err
	}
	return r, r.open(o)
}

func (r *Reader) open(o Options) (err error) {
	if r.device, err = newDevice(&r.state.base, o); err != nil {
		return err
	}
	return r.load()
}

// load takes the stored contacts and grants into memory.
func (r *Reader) load() error {
	r.owners, r.invited = map[policies.OwnerID]*knownOwner{}, map[policies.Hash]policies.OwnerID{}
	r.authors = map[policies.AuthorID]succession.Line{}
	for i := range r.state.Owners {
		if err := r.know(r.state.Owners[i]); err != nil {
			return err
		}
		if c := &r.state.Owners[i]; !c.Invited.IsZero() {
			r.invited[c.Invited] = c.ID
		}
	}
	for i := range r.state.Grants {
		g := &r.state.Grants[i]
		if k, ok := r.owners[g.Doc.Owner]; ok {
			k.grants[g.Hash] = &verifiedGrant{hash: g.Hash, doc: &g.Doc}
		}
	}
	return nil
}

// know takes a contact into memory.
func (r *Reader) know(c ownerContact) error {
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil || line.ID != policies.IdentityID(c.ID) {
		return fmt.Errorf("%w: contact: %w", ErrState, err)
	}
	r.settled = false
	if have, ok := r.owners[c.ID]; ok { // in place: reads may be under way, and raise the mark
		have.contact.Alias, have.contact.Relations = c.Alias, c.Relations
		return nil
	}
	r.owners[c.ID] = &knownOwner{contact: &c, line: line, grants: map[policies.Hash]*verifiedGrant{}, order: map[writtenField]place{}}
	return nil
}

// save writes everything.
func (r *Reader) save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saveLocked()
}

func (r *Reader) saveLocked() error {
	r.trust.store(&r.state.base)
	r.state.Owners, r.state.Grants = nil, nil
	for _, k := range r.owners {
		r.state.Owners = append(r.state.Owners, *k.contact)
		for _, g := range k.grants {
			if !g.stale && g.doc.Expires > r.now().Unix() {
				r.state.Grants = append(r.state.Grants, heldGrant{g.hash, *g.doc})
			}
		}
	}
	slices.SortFunc(r.state.Owners, func(a, b ownerContact) int {
		return strings.Compare(a.Alias+"\x00"+a.ID.String(), b.Alias+"\x00"+b.ID.String())
	})
	slices.SortFunc(r.state.Grants, func(a, b heldGrant) int { return strings.Compare(a.Hash.String(), b.Hash.String()) })
	r.dirty = false
	return saveState(r.store, &r.state)
}

// Flush saves the marks and grants that reads taught this Reader since it was last saved, all in one go: a file per read would cost
// more than the read. A process that is killed before forgets no more than how new the newest manifests were since then.
func (r *Reader) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dirty && !r.trust.unsaved() {
		return nil
	}
	return r.saveLocked()
}

// Close saves what was learnt and forgets the keys.
func (r *Reader) Close() error {
	err := r.Flush()
	r.forget()
	r.device.close()
	return err
}

// forget overwrites the secrets of session and grants.
func (r *Reader) forget() {
	r.sessionMu.Lock()
	defer r.sessionMu.Unlock()
	if r.session != nil {
		r.session.zero()
		r.session = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.owners {
		for _, g := range k.grants {
			if g.secret != nil {
				g.secret.Zero()
			}
		}
	}
}

// ID is the reader's id.
func (r *Reader) ID() policies.ReaderID { return policies.ReaderID(r.id) }

// SignAudit signs the report of an audit with the reader's identity, and nothing else.
func (r *Reader) SignAudit(report envelope.Document) (*envelope.Envelope, error) {
	if t := report.DocumentType(); t != "audit-report" {
		return nil, fmt.Errorf("%w: a %q is no report of an audit", policies.ErrMalformed, t)
	}
	return envelope.Seal(r.signing, report)
}

// Network is where storefront and vault are.
func (r *Reader) Network() Network { return r.state.Network }

// Vault is the vault document in use.
func (r *Reader) Vault(ctx context.Context) (*policies.VaultDocument, error) { return r.vault(ctx) }

// Code is this reader's contact code. It holds no secret and may be printed on paper or a web page of one's own.
func (r *Reader) Code() links.Contact {
	return links.Contact{Role: "reader", ID: r.id}
}

// ready enrols the identity and posts relationships that were not posted yet.
func (r *Reader) ready(ctx context.Context) error {
	if err := r.finishReplacing(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	settled := r.settled
	r.mu.Unlock()
	if settled {
		return nil
	}
	r.grantsMu.Lock() // one posts for all
	defer r.grantsMu.Unlock()
	changed, err := r.enrol(ctx)
	if err != nil {
		return err
	}
	type unposted struct {
		contact *ownerContact
		index   int
		raw     jsontext.Value
	}
	var list []unposted
	r.mu.Lock()
	r.settled = true // unless something is added, or fails, from here
	for _, k := range r.owners {
		for i := range k.contact.Relations {
			if raw := k.contact.Relations[i].Raw; raw != nil {
				list = append(list, unposted{k.contact, i, raw})
			}
		}
	}
	r.mu.Unlock()
	for _, u := range list {
		if err := r.wire.call(ctx, request{method: "POST", path: api.PathRelationships, raw: u.raw, login: true}); err != nil {
			r.mu.Lock()
			r.settled = false
			r.mu.Unlock()
			return fmt.Errorf("posting a relationship: %w", err)
		}
		r.mu.Lock()
		u.contact.Relations[u.index].Raw = nil
		r.mu.Unlock()
		changed = true
	}
	gaveUp, err := r.sendGivenUp(ctx)
	changed = changed || gaveUp
	if err != nil {
		r.mu.Lock()
		r.settled = false
		r.mu.Unlock()
		return err
	}
	if changed {
		return r.save()
	}
	return nil
}

// Connect does the reader's half of meeting an owner: it makes a key for this owner alone, signs the relationship with the nonce of the
// owner's code, and posts it. The same code again changes nothing but the alias.
func (r *Reader) Connect(ctx context.Context, code links.Contact, alias string) (Contact, error) {
	if code.Role != "owner" {
		return Contact{}, fmt.Errorf("%w: this is not the code of an owner", policies.ErrMalformed)
	}
	owner := policies.OwnerID(code.ID)
	if err := r.freeAlias(alias, owner); err != nil {
		return Contact{}, err
	}
	raw, _, err := r.identity(ctx, code.ID)
	if err != nil {
		return Contact{}, err
	}
	r.mu.Lock()
	c := ownerContact{ID: owner, Identity: raw}
	if k, ok := r.owners[owner]; ok {
		c = *k.contact
		c.Relations = slices.Clone(c.Relations)
	}
	r.mu.Unlock()
	if alias != "" {
		c.Alias = alias
	}
	if !slices.ContainsFunc(c.Relations, func(rel relation) bool { return rel.Nonce == code.Nonce }) {
		e, err := r.relate(policies.NewHeader("relationship", r.now()), owner, code.Nonce)
		if err != nil {
			return Contact{}, err
		}
		c.Relations = append(c.Relations, relation{Nonce: code.Nonce, Hash: policies.Hash(e.Hash), Raw: e.Raw})
	}
	r.mu.Lock()
	err = r.know(c)
	if err == nil {
		err = r.saveLocked()
	}
	r.mu.Unlock()
	if err != nil {
		return Contact{}, err
	}
	return c.public(), r.ready(ctx)
}

func (r *Reader) freeAlias(alias string, owner policies.OwnerID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range r.owners {
		if alias != "" && k.contact.Alias == alias && id != owner {
			return fmt.Errorf("%w: the alias %q is taken by another contact", policies.ErrMalformed, alias)
		}
	}
	return nil
}

func (c *ownerContact) public() Contact {
	return Contact{Alias: c.Alias, ID: policies.IdentityID(c.ID), Kind: policies.KindPerson}
}

// Contacts lists the owners that were met, by alias.
func (r *Reader) Contacts() []Contact {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Contact, 0, len(r.owners))
	for _, k := range r.owners {
		out = append(out, k.contact.public())
	}
	slices.SortFunc(out, func(a, b Contact) int {
		return strings.Compare(a.Alias+"\x00"+a.ID.String(), b.Alias+"\x00"+b.ID.String())
	})
	return out
}

// Find looks an owner up by alias or id.
func (r *Reader) Find(nameOrID string) (policies.OwnerID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range r.owners {
		if k.contact.Alias == nameOrID && nameOrID != "" || id.String() == nameOrID {
			return id, nil
		}
	}
	return policies.OwnerID{}, fmt.Errorf("%q: %w", nameOrID, ErrNoContact)
}

// Granted asks the storefront for the grants that name this reader, verifies those it does not know, and returns every field that may be read now, by
// owner and name. What the storefront holds back is missing; what it makes up is refused.
func (r *Reader) Granted(ctx context.Context) ([]Item, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	offered, err := r.fetchGrants(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Item
	now := r.now().Unix()
	for owner, k := range r.owners {
		for hash, g := range k.grants {
			// A grant that is not offered any more was revoked or superseded; the vault decides, should somebody ask. One to a key that was replaced is suspended.
			if !offered[hash] || g.doc.Expires <= now || !slices.ContainsFunc(k.contact.Relations, func(rel relation) bool { return rel.Hash == g.doc.Relationship }) {
				continue
			}
			for i := range g.doc.Fields {
				out = append(out, Item{Owner: owner, Field: g.doc.Fields[i].Field})
			}
		}
	}
	slices.SortFunc(out, func(a, b Item) int {
		if c := strings.Compare(a.Owner.String(), b.Owner.String()); c != 0 {
			return c
		}
		return strings.Compare(string(a.Field), string(b.Field))
	})
	return slices.Compact(out), nil
}

// Custody is where the key of an item rests: of the newest grant that [Reader.Granted] found for it, or empty if there is none.
func (r *Reader) Custody(it Item) (custody policies.Custody) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, met := r.owners[it.Owner]
	if !met {
		return ""
	}
	var newest uint64
	for _, g := range k.grants {
		if _, ok := g.doc.Field(it.Field, it.author()); ok && !g.stale && g.doc.Seq > newest {
			custody, newest = g.doc.Custody, g.doc.Seq
		}
	}
	return custody
}

// fetchGrants pages through the grants that name this reader and keeps those that verify.
func (r *Reader) fetchGrants(ctx context.Context) (offered map[policies.Hash]bool, err error) {
	r.grantsMu.Lock()
	defer r.grantsMu.Unlock()
	offered = map[policies.Hash]bool{}
	after := ""
	for {
		q := url.Values{}
		if after != "" {
			q.Set("after", after)
		}
		var page api.ReaderGrants
		if err := r.wire.call(ctx, request{method: "GET", path: api.PathReaderGrants, query: q, out: &page, login: true}); err != nil {
			return nil, fmt.Errorf("fetching grants: %w", err)
		}
		before := len(offered)
		for _, raw := range page.Grants {
			e, err := envelope.Parse(raw)
			if err != nil {
				return nil, fmt.Errorf("fetching grants: %w: %w", ErrUntrue, err)
			}
			offered[policies.Hash(e.Hash)] = true
			if err := r.keepGrant(ctx, e); err != nil {
				return nil, fmt.Errorf("fetching grants: %w", err)
			}
		}
		if page.After == "" || page.After == after {
			break
		}
		// A storefront that pages for ever would hold its reader for ever.
		if len(offered) == before || len(offered) > maxOffered {
			return nil, fmt.Errorf("fetching grants: %w: its pages have no end", ErrUntrue)
		}
		after = page.After
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.owners {
		for hash, g := range k.grants {
			if g.stale != !offered[hash] {
				g.stale, r.dirty = !offered[hash], true
			}
		}
	}
	return offered, nil
}

// keepGrant verifies a grant to this reader and keeps it. One of an owner that this reader has not met is left alone.
func (r *Reader) keepGrant(ctx context.Context, e *envelope.Envelope) error {
	hash := policies.Hash(e.Hash)
	claim, err := policies.Decode[policies.Grant](e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	r.mu.Lock()
	k, met := r.owners[claim.Owner]
	known := met && k.grants[hash] != nil
	r.mu.Unlock()
	if known || !met {
		return nil
	}
	if err := r.verifyOwner(ctx, k, e, claim.Seq); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	g := claim
	if g.Reader != r.ID() || g.Audience != r.state.Network.Vault {
		return fmt.Errorf("%w: a grant to another reader, or for another vault", ErrUntrue)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k = r.owners[claim.Owner]
	if k.grants[hash] == nil {
		k.grants[hash] = &verifiedGrant{hash: hash, doc: g}
		k.contact.Purpose, r.dirty = g.Purpose, true
	}
	return nil
}

// identity is the owner's, with the newest keys that this reader knows. The caller holds r.mu.
func (k *knownOwner) identity() (*policies.Identity, error) {
	doc, err := openIdentity(k.contact.Identity, policies.IdentityID(k.contact.ID))
	if err != nil {
		return nil, err
	}
	h := k.line.Newest()
	doc.SigningKey, doc.KEMKey, doc.LoginKey, doc.RecoveryHash = h.SigningKey, h.KEMKey, h.LoginKey, h.Recovery
	return doc, nil
}

// refresh asks whether an owner has newer keys. What cannot be asked now stays as it is known.
func (r *Reader) refresh(ctx context.Context, owner policies.OwnerID) {
	r.mu.Lock()
	k, ok := r.owners[owner]
	if !ok {
		r.mu.Unlock()
		return
	}
	line := k.line
	r.mu.Unlock()
	newer, raw, err := r.successions(ctx, line)
	if err != nil || len(newer.Holders) == len(line.Holders) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(newer.Holders) > len(k.line.Holders) {
		k.line, k.contact.Successions, r.dirty = newer, raw, true
	}
}

// verifyOwner checks the signature of a document at a place of an owner's chain. One that does not verify may be signed by newer keys than this reader
// knows: it asks for them, and believes what leads there from the identity that came from outside the storefront.
func (r *Reader) verifyOwner(ctx context.Context, k *knownOwner, e *envelope.Envelope, seq uint64) error {
	r.mu.Lock()
	line := k.line
	r.mu.Unlock()
	err := line.Verify(e, seq)
	if err == nil {
		return nil
	}
	newer, raw, learnErr := r.successions(ctx, line)
	if learnErr != nil {
		return fmt.Errorf("%w; %w", err, learnErr)
	}
	if len(newer.Holders) == len(line.Holders) {
		return err
	}
	r.mu.Lock()
	if len(newer.Holders) > len(k.line.Holders) {
		k.line, k.contact.Successions, r.dirty = newer, raw, true
	}
	r.mu.Unlock()
	return newer.Verify(e, seq)
}

// open makes the grant's secret, once.
func (g *verifiedGrant) open(r *Reader, c *ownerContact) (*pre.GrantSecret, error) {
	g.once.Do(func() {
		g.err = fmt.Errorf("%w: the grant is for a relationship that this reader did not make", ErrUntrue)
		for _, rel := range c.Relations {
			if rel.Hash == g.doc.Relationship {
				key := r.root.ReaderKey(c.ID, rel.Nonce)
				g.secret, g.err = key.OpenGrant(g.doc.Ciphertext)
				key.Zero()
			}
		}
	})
	return g.secret, g.err
}
