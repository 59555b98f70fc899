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
	"github.com/sallyport/sallyport/storefront/client/safe"
	"github.com/sallyport/sallyport/vault/pre"
)

// Reader is a business's, or another person's, side: it reads what owners granted. It is safe for concurrent use.
type Reader struct {
	*device
	store Store

	replaceMu sync.Mutex // held while a replacement goes on, so that one process is at it once

	mu       sync.Mutex // guards everything below; never held over the network
	state    readerState
	dirty    bool
	settled  bool                                  // enrolled, and every relationship posted
	unproven error                                 // of what was given up, why it is said to be over and not believed
	book     *safe.Book                            // everybody who was met
	safe     *safe.Safe                            // the book's file; nil: the book is stored with the state
	owners   map[policies.OwnerID]*knownOwner      // of them those that were used last
	room     int                                   // how many of them
	clock    uint64                                // counts uses of owners
	authors  map[policies.AuthorID]succession.Line // of others who write for owners

	sessionMu sync.Mutex // guards session, and is held while opening one so that one serves all
	session   *session
	grantsMu  sync.Mutex // held while fetching grants, so that one fetch serves all
	mailMu    sync.Mutex // held while sending messages, so that each goes out once
	writeMu   sync.Mutex // held over a whole Write, since manifests follow one another; guards state.Writing's elements
}

type readerState struct {
	base
	Safe   safe.Head `json:"safe,omitzero"`   // of the book's file
	People []byte    `json:"people,omitzero"` // the book's records, where there is no file

	Owners []formerContact  `json:"owners,omitzero"` // of a program before there were safes: taken over
	Grants []jsontext.Value `json:"grants,omitzero"` // the same: fetched when they are needed

	Chain     position           `json:"chain,omitzero"`     // of this reader's own documents: suspensions, successions
	Replacing *replacement       `json:"replacing,omitzero"` // begun, and not in force yet
	Waiting   []policies.OwnerID `json:"waiting,omitzero"`   // who had granted something before the newest replacement, and has not renewed it
	Mail      readerMail         `json:"mail,omitzero"`

	Writing  []*writingFor    `json:"writing,omitzero"`
	GivingUp []jsontext.Value `json:"giving_up,omitzero"` // renunciations that are not acknowledged yet
}

// mark is the newest manifest seen: the high-water mark below which nothing is believed.
type mark = safe.Mark

// knownOwner is what a Reader keeps in memory of one owner.
type knownOwner struct {
	contact   *safe.Person       // as in the book
	line      succession.Line    // no holders: not fetched yet; see [Reader.lineOf]
	pins      int                // reads under way; it stays in memory
	used      uint64             // when it was used last, by the reader's clock
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

// Flush saves the marks that reads taught this Reader since it was last saved, all in one go: a file per read would cost
// more than the read. A process that is killed before forgets no more than how new the newest manifests were since then.
func (r *Reader) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dirty && !r.trust.unsaved() {
		return nil
	}
	return r.saveLocked()
}

// Made is when this profile was made, or the backup from which it was restored: what was seen before that, the book knows.
func (r *Reader) Made() time.Time { return time.Unix(r.state.Made, 0).UTC() }

// Close saves what was learnt and forgets the keys.
func (r *Reader) Close() error {
	err := r.Flush()
	r.forget()
	r.device.close()
	if r.safe != nil {
		err = errors.Join(err, r.safe.Close())
	}
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
		k.forget()
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

// Why adds to the refusal of a login or a signature that this reader's keys were replaced, on another machine or from another backup, if that is why. Newer keys are believed with the vault's receipt only.
func (r *Reader) Why(ctx context.Context, err error) error {
	if !foreign(err) || errors.Is(err, ErrReplaced) {
		return err
	}
	r.mu.Lock()
	line := r.line
	r.mu.Unlock()
	if newer, _, asked := r.successions(ctx, line); asked == nil && len(newer.Holders) > len(line.Holders) {
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return err
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
	r.mu.Lock()
	r.settled = true // unless something is added, or fails, from here
	unposted := r.book.Unposted()
	r.mu.Unlock()
	for n, owner := range unposted {
		if err := r.postRelations(ctx, owner); err != nil {
			r.mu.Lock()
			r.settled = false
			r.mu.Unlock()
			return fmt.Errorf("posting a relationship: %w", err)
		}
		if changed = true; n%postedAtOnce == postedAtOnce-1 {
			if err := r.save(); err != nil {
				return err
			}
		}
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

// postedAtOnce is after how many relationships it is saved that they were posted.
const postedAtOnce = 256

// postRelations gives the storefront the relationships with an owner that it does not have. They are signed anew: what names them is the hash of what is signed.
func (r *Reader) postRelations(ctx context.Context, owner policies.OwnerID) error {
	r.mu.Lock()
	k, met := r.owner(owner)
	if !met {
		r.mu.Unlock()
		return nil
	}
	list := slices.Clone(k.contact.Relations)
	r.mu.Unlock()
	for _, rel := range list {
		if rel.ID.IsZero() {
			continue
		}
		header := policies.Header{Type: "relationship", Suite: policies.Suite, ID: rel.ID, Time: rel.Time}
		e, err := r.relate(header, owner, rel.Nonce)
		if err != nil {
			return err
		}
		if policies.Hash(e.Hash) != rel.Hash {
			return fmt.Errorf("%w: a relationship is not the one that was made", ErrState)
		}
		if err := r.wire.call(ctx, request{method: "POST", path: api.PathRelationships, raw: e.Raw, login: true}); err != nil {
			return err
		}
		r.mu.Lock()
		if k, met = r.owner(owner); met {
			for i := range k.contact.Relations {
				if at := &k.contact.Relations[i]; at.Hash == rel.Hash {
					at.ID, at.Time = policies.DocumentID{}, 0
				}
			}
			err = r.put(k)
		}
		r.mu.Unlock()
		if err != nil {
			return err
		}
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
	_, doc, err := r.identity(ctx, code.ID)
	if err != nil {
		return Contact{}, err
	}
	contact, err := r.meet(owner, code.Nonce, alias, policies.Hash{}, doc)
	if err != nil {
		return Contact{}, err
	}
	return contact, r.ready(ctx)
}

// meet enters an owner into the book, with a relationship of this nonce, and the invitation that they came by, whose reference the alias is then.
func (r *Reader) meet(owner policies.OwnerID, nonce policies.Nonce, alias string, invitation policies.Hash, doc *policies.Identity) (Contact, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := safe.Person{ID: owner}
	known, met := r.owner(owner)
	if met {
		p = *known.contact
	}
	first, invited := false, !invitation.IsZero()
	switch {
	case invited:
		if first = p.Invite(invitation, alias, r.now()); !first && len(p.Relations) >= safe.MaxRelations/2 { // the rest is for codes that are handed over
			return Contact{}, fmt.Errorf("%w: this person has used %s too often", policies.CodeInvitation, alias)
		}
	case alias != "" && alias != p.Alias:
		p.Call(alias, r.now())
	}
	if !slices.ContainsFunc(p.Relations, func(rel safe.Relation) bool { return rel.Nonce == nonce }) {
		made := policies.NewHeader("relationship", r.now())
		e, err := r.relate(made, owner, nonce)
		if err != nil {
			return Contact{}, err
		}
		p.Relations = append(slices.Clone(p.Relations), safe.Relation{Nonce: nonce, Hash: policies.Hash(e.Hash), ID: made.ID, Time: made.Time})
	}
	if err := r.book.Put(&p); err != nil {
		return Contact{}, err
	}
	if !met {
		known, _ = r.owner(owner)
	}
	c := known.contact // of which reads that are under way know the rest, and raise the mark
	c.Alias, c.Named, c.Invited, c.Relations = p.Alias, p.Named, p.Invited, p.Relations
	if len(known.line.Holders) == 0 && c.Keys.Generation == 0 {
		known.line = succession.Begin(policies.IdentityID(owner), doc)
	}
	if first || invited && !r.heardOf(owner, alias) {
		r.happened(ConsentEvent{Kind: EventAccepted, Owner: owner, Invitation: alias})
	}
	r.settled = false
	return public(owner, p.Alias), r.saveLocked()
}

// heardOf reports whether the events tell that an owner accepted the invitation of a reference. The book may know it before them: it is written first. The caller
// holds mu.
func (r *Reader) heardOf(owner policies.OwnerID, reference string) bool {
	return slices.ContainsFunc(r.state.Mail.Events, func(e ConsentEvent) bool {
		return e.Kind == EventAccepted && e.Owner == owner && (e.Invitation == reference || e.Invitation == "")
	})
}

func (r *Reader) freeAlias(alias string, owner policies.OwnerID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, taken, err := r.book.Named(alias); err != nil || taken && id != owner {
		return fmt.Errorf("%w: the alias %q is taken by another contact", policies.ErrMalformed, alias)
	}
	return nil
}

func public(owner policies.OwnerID, alias string) Contact {
	return Contact{Alias: alias, ID: policies.IdentityID(owner), Kind: policies.KindPerson}
}

// Contacts lists the owners that were met, by alias.
func (r *Reader) Contacts() []Contact {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Contact, 0, r.book.Len())
	r.book.Aliases(func(id policies.OwnerID, alias string) { out = append(out, public(id, alias)) })
	slices.SortFunc(out, func(a, b Contact) int {
		if c := strings.Compare(a.Alias, b.Alias); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	return out
}

// People is how many owners were met.
func (r *Reader) People() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.Len()
}

// Find looks an owner up by alias or id. An alias that several have finds none of them; see [safe.ErrShared].
func (r *Reader) Find(nameOrID string) (policies.OwnerID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ownerOf(nameOrID)
}

// Alias is what this reader calls an owner, if anything.
func (r *Reader) Alias(owner policies.OwnerID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alias(owner)
}

// alias is [Reader.Alias]. The caller holds r.mu.
func (r *Reader) alias(owner policies.OwnerID) string {
	p, _ := r.book.Get(owner)
	return p.Alias
}

// GrantedField is a field that may be read now.
type GrantedField struct {
	Item
	Alias   string           // of the owner
	Custody policies.Custody // where the key rests
	newest  uint64           // place of the grant in the owner's chain
}

// Granted asks the storefront for the grants that name this reader, verifies those it does not know, and returns every field that may be read now, by
// owner and name. What the storefront holds back is missing; what it makes up is refused. The identity of each owner who is not in memory is fetched for it.
func (r *Reader) Granted(ctx context.Context) ([]Item, error) {
	fields, err := r.GrantedFields(ctx, policies.OwnerID{})
	out := make([]Item, len(fields))
	for i := range fields {
		out[i] = fields[i].Item
	}
	return out, err
}

// GrantedFields is [Reader.Granted] with where the keys rest, of one owner or, if that is zero, of all.
func (r *Reader) GrantedFields(ctx context.Context, owner policies.OwnerID) ([]GrantedField, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	found := map[Item]*GrantedField{}
	now := r.now().Unix()
	err := r.fetchGrants(ctx, owner, func(k *knownOwner, g *verifiedGrant) {
		// One to a key that was replaced is suspended.
		if g.doc.Expires <= now || !slices.ContainsFunc(k.contact.Relations, func(rel safe.Relation) bool { return rel.Hash == g.doc.Relationship }) {
			return
		}
		for i := range g.doc.Fields {
			it := Item{Owner: g.doc.Owner, Field: g.doc.Fields[i].Field}
			have := found[it]
			if have == nil {
				have = &GrantedField{Item: it, Alias: k.contact.Alias}
				found[it] = have
			}
			if g.doc.Fields[i].Author == policies.AuthorID(it.Owner) && g.doc.Seq > have.newest {
				have.newest, have.Custody = g.doc.Seq, g.doc.Custody
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([]GrantedField, 0, len(found))
	for _, f := range found {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b GrantedField) int {
		if c := slices.Compare(a.Owner[:], b.Owner[:]); c != 0 {
			return c
		}
		return strings.Compare(string(a.Field), string(b.Field))
	})
	return out, nil
}

// fetchGrants pages through the grants that name this reader, of one owner or, if that is zero, of all, keeps in memory those that verify, and calls each with them, with
// mu held. A grant that is not offered any more was revoked or superseded; the vault decides, should somebody ask.
func (r *Reader) fetchGrants(ctx context.Context, owner policies.OwnerID, each func(*knownOwner, *verifiedGrant)) error {
	if each == nil {
		each = func(*knownOwner, *verifiedGrant) {}
	}
	r.grantsMu.Lock()
	defer r.grantsMu.Unlock()
	offered := map[policies.Hash]bool{}
	after := ""
	for {
		q := url.Values{}
		if after != "" {
			q.Set("after", after)
		}
		if !owner.IsZero() {
			q.Set("owner", owner.String())
		}
		var page api.ReaderGrants
		if err := r.wire.call(ctx, request{method: "GET", path: api.PathReaderGrants, query: q, out: &page, login: true}); err != nil {
			return fmt.Errorf("fetching grants: %w", err)
		}
		before := len(offered)
		for _, raw := range page.Grants {
			e, err := envelope.Parse(raw)
			if err != nil {
				return fmt.Errorf("fetching grants: %w: %w", ErrUntrue, err)
			}
			offered[policies.Hash(e.Hash)] = true
			if err := r.keepGrant(ctx, e, each); err != nil {
				return fmt.Errorf("fetching grants: %w", err)
			}
		}
		if page.After == "" || page.After == after {
			break
		}
		// A storefront that pages for ever would hold its reader for ever.
		if len(offered) == before || len(offered) > maxOffered {
			return fmt.Errorf("fetching grants: %w: its pages have no end", ErrUntrue)
		}
		after = page.After
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range r.owners {
		for hash, g := range k.grants {
			if owner.IsZero() || id == owner {
				g.stale = !offered[hash]
			}
		}
	}
	return nil
}

// grantsOf fetches the grants of the owners of some items: one by one if they are few, else of all at once.
func (r *Reader) grantsOf(ctx context.Context, items []Item) error {
	owners := map[policies.OwnerID]bool{}
	for i := range items {
		owners[items[i].Owner] = true
	}
	if len(owners) > askedSingly {
		return r.fetchGrants(ctx, policies.OwnerID{}, nil)
	}
	for owner := range owners {
		if err := r.fetchGrants(ctx, owner, nil); err != nil {
			return err
		}
	}
	return nil
}

// askedSingly is of how many owners grants are fetched owner by owner.
const askedSingly = 32

// keepGrant verifies a grant to this reader, keeps it in memory, and calls each with it, with mu held. One of an owner that this reader has not met is left alone.
func (r *Reader) keepGrant(ctx context.Context, e *envelope.Envelope, each func(*knownOwner, *verifiedGrant)) error {
	hash := policies.Hash(e.Hash)
	claim, err := policies.Decode[policies.Grant](e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	r.mu.Lock()
	k, met := r.owner(claim.Owner)
	if !met || k.grants[hash] != nil {
		if met {
			each(k, k.grants[hash])
		}
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	if err := r.verifyOwner(ctx, claim.Owner, e, claim.Seq); err != nil {
		return distrust(err)
	}
	g := claim
	if g.Reader != r.ID() || g.Audience != r.state.Network.Vault {
		return fmt.Errorf("%w: a grant to another reader, or for another vault", ErrUntrue)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, met = r.owner(claim.Owner); !met {
		return nil
	}
	if k.grants[hash] == nil {
		k.grants[hash] = &verifiedGrant{hash: hash, doc: g}
		if p := k.contact; g.Seq >= p.Granted && (g.Purpose != p.Purpose || g.Seq != p.Granted) {
			p.Purpose, p.Granted = g.Purpose, g.Seq
			if err := r.put(k); err != nil {
				return err
			}
		}
	}
	each(k, k.grants[hash])
	return nil
}

// verifyOwner checks the signature of a document at a place of an owner's chain. One that does not verify may be signed by newer keys than this reader
// knows: it asks for them, and believes what leads there from the identity that came from outside the storefront.
func (r *Reader) verifyOwner(ctx context.Context, owner policies.OwnerID, e *envelope.Envelope, seq uint64) error {
	line, err := r.lineOf(ctx, owner)
	if err != nil {
		return err
	}
	if err = line.Verify(e, seq); err == nil {
		return nil
	}
	newer, _, learnErr := r.successions(ctx, line)
	if learnErr != nil {
		return fmt.Errorf("%w; %w", err, learnErr)
	}
	if len(newer.Holders) == len(line.Holders) {
		return err
	}
	if err := r.learnLine(owner, newer); err != nil {
		return err
	}
	return newer.Verify(e, seq)
}

// open makes the grant's secret, once.
func (g *verifiedGrant) open(r *Reader, c *safe.Person) (*pre.GrantSecret, error) {
	g.once.Do(func() {
		g.err = fmt.Errorf("%w: the grant is for a relationship that this reader did not make", ErrUntrue)
		if len(r.line.Holders) > 1 { // or to a key that it gave up, by an owner's device that has not seen the new one; it will, and grants anew
			g.err = policies.CodeSuspended
		}
		r.mu.Lock()
		relations := slices.Clone(c.Relations) // of which some may be posted, or added, meanwhile
		r.mu.Unlock()
		for _, rel := range relations {
			if rel.Hash == g.doc.Relationship {
				key := r.root.ReaderKey(c.ID, rel.Nonce)
				g.secret, g.err = key.OpenGrant(g.doc.Ciphertext)
				key.Zero()
			}
		}
	})
	return g.secret, g.err
}
