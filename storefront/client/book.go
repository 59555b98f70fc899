package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client/safe"
)

// A reader's book has everybody whom it met, a few hundred bytes each; see package safe. What else it needs of an owner (keys, grants, manifests) is fetched when it is
// needed and kept in memory for those who were used last. The id in the book is the hash of the first identity document, and the book says which replacement of the
// keys was seen last, so that what is fetched anew is what was seen before, or newer.

// SafeStore is a Store with a place for a safe beside the state. Where a Store is none, the book is a part of the state, which is saved whole each time.
type SafeStore interface {
	Store
	Safe(head safe.Head) (*safe.Safe, error)
}

// maxKnown is of how many owners keys, grants and manifests are kept in memory, besides those that reads are under way for: some 25 kB each.
const maxKnown = 1024

// formerContact is how programs before there were safes stored an owner.
type formerContact struct {
	Alias     string           `json:"alias,omitzero"`
	ID        policies.OwnerID `json:"id"`
	Identity  jsontext.Value   `json:"identity"`
	Relations []struct {
		Nonce policies.Nonce `json:"nonce"`
		Hash  policies.Hash  `json:"hash"`
		Raw   jsontext.Value `json:"raw,omitzero"` // until it is posted
	} `json:"relations"`
	Mark  formerMark `json:"mark,omitzero"`
	Marks []struct {
		Author policies.AuthorID `json:"author"`
		formerMark
	} `json:"marks,omitzero"`
	Purpose string        `json:"purpose,omitzero"`
	Invited policies.Hash `json:"invited,omitzero"`

	Successions []jsontext.Value `json:"successions,omitzero"`
}

type formerMark struct {
	Version uint64        `json:"version"`
	Hash    policies.Hash `json:"hash"`
}

// person is the same as the book has it.
func (c *formerContact) person() (*safe.Person, error) {
	line, err := lineOf(c.Identity, c.Successions)
	if err != nil || line.ID != policies.IdentityID(c.ID) {
		return nil, fmt.Errorf("%w: contact: %w", ErrState, err)
	}
	p := &safe.Person{ID: c.ID, Alias: c.Alias, Mark: mark(c.Mark), Purpose: c.Purpose, Keys: newestSeen(line)}
	if !c.Invited.IsZero() {
		p.Invite(c.Invited, c.Alias, time.Unix(0, 0))
	}
	for _, r := range c.Relations {
		rel := safe.Relation{Nonce: r.Nonce, Hash: r.Hash}
		if r.Raw != nil {
			e, err := envelope.Parse(r.Raw)
			if err != nil {
				return nil, fmt.Errorf("%w: relationship: %w", ErrState, err)
			}
			d, err := policies.Decode[policies.Relationship](e)
			if err != nil {
				return nil, fmt.Errorf("%w: relationship: %w", ErrState, err)
			}
			rel.ID, rel.Time = d.ID, d.Time
		}
		p.Relations = append(p.Relations, rel)
	}
	for _, m := range c.Marks {
		p.Marks = append(p.Marks, safe.AuthorMark{Author: m.Author, Mark: mark(m.formerMark)})
	}
	return p, nil
}

// newestSeen is what the book says of a line's keys.
func newestSeen(line succession.Line) safe.Keys {
	if n := len(line.Holders); n > 1 {
		return safe.Keys{Generation: uint64(n - 1), Document: line.Holders[n-1].Document}
	}
	return safe.Keys{}
}

// load opens the book, and takes over what an older program stored.
func (r *Reader) load() (err error) {
	defer func() {
		if err != nil && r.safe != nil {
			_ = r.safe.Close()
		}
	}()
	r.room = maxKnown
	r.owners, r.authors = map[policies.OwnerID]*knownOwner{}, map[policies.AuthorID]succession.Line{}
	if store, ok := r.store.(SafeStore); ok {
		if r.safe, err = store.Safe(r.state.Safe); err != nil {
			return err
		}
		r.book = r.safe.Book
	} else {
		r.book = safe.NewBook(0)
	}
	if _, _, err := r.book.Join(r.state.People); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	records := safe.NewBook(len(r.state.Owners))
	for i := range r.state.Owners {
		p, err := r.state.Owners[i].person()
		if err != nil {
			return err
		}
		if err := records.Put(p); err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	if _, _, err := r.book.Join(records.Records()); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	r.dirty = r.state.Owners != nil || r.state.Grants != nil || r.safe != nil && r.state.People != nil
	r.state.Owners, r.state.Grants, r.state.People = nil, nil, nil
	return nil
}

// owner is what is known of an owner who was met. The caller holds r.mu.
func (r *Reader) owner(id policies.OwnerID) (*knownOwner, bool) {
	r.clock++
	k, ok := r.owners[id]
	if !ok {
		p, met := r.book.Get(id)
		if !met {
			return nil, false
		}
		r.makeRoom()
		k = &knownOwner{contact: &p, grants: map[policies.Hash]*verifiedGrant{}, order: map[writtenField]place{}}
		r.owners[id] = k
	}
	k.used = r.clock
	return k, true
}

// makeRoom forgets what was fetched of an owner who was not used lately: of some that come up by chance, who was used least recently. The caller holds r.mu.
func (r *Reader) makeRoom() {
	for len(r.owners) >= r.room {
		var oldest *knownOwner
		looked := 0
		for _, k := range r.owners {
			if k.pins == 0 && (oldest == nil || k.used < oldest.used) {
				oldest = k
			}
			if looked++; looked == 16 && oldest != nil {
				break
			}
		}
		if oldest == nil {
			return // reads are under way for all
		}
		oldest.forget()
		delete(r.owners, oldest.contact.ID)
	}
}

// forget overwrites the secrets of an owner's grants.
func (k *knownOwner) forget() {
	for _, g := range k.grants {
		if g.secret != nil {
			g.secret.Zero()
		}
	}
}

// pin keeps owners in memory until unpin is called.
func (r *Reader) pin(out []Value, indexes []int) (unpin func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pinned := map[policies.OwnerID]*knownOwner{}
	for _, i := range indexes {
		if k, ok := r.owner(out[i].Owner); ok && pinned[out[i].Owner] == nil {
			k.pins++
			pinned[out[i].Owner] = k
		}
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, k := range pinned {
			k.pins--
		}
	}
}

// put stores in the book what changed of an owner. The caller holds r.mu.
func (r *Reader) put(k *knownOwner) error {
	r.dirty = true
	return r.book.Put(k.contact)
}

// lineOf is an owner's identity with all its keys, fetched if need be. It is the one of the id that came from outside the storefront, and goes at least as far as this
// reader saw it go.
func (r *Reader) lineOf(ctx context.Context, owner policies.OwnerID) (succession.Line, error) {
	r.mu.Lock()
	k, met := r.owner(owner)
	if !met {
		r.mu.Unlock()
		return succession.Line{}, ErrNoContact
	}
	line, keys := k.line, k.contact.Keys
	r.mu.Unlock()
	if len(line.Holders) > 0 {
		return line, nil
	}
	_, doc, err := r.identity(ctx, policies.IdentityID(owner))
	if err != nil {
		return line, err
	}
	line = succession.Begin(policies.IdentityID(owner), doc)
	if keys.Generation > 0 {
		if line, _, err = r.successions(ctx, line); err != nil {
			return succession.Line{}, err
		}
		if uint64(len(line.Holders)) <= keys.Generation || line.Holders[keys.Generation].Document != keys.Document {
			return succession.Line{}, fmt.Errorf("%w: the keys of an owner are older than those seen before", ErrRollback)
		}
	}
	return line, r.learnLine(owner, line)
}

// learnLine takes an owner's keys in, unless newer ones are known.
func (r *Reader) learnLine(owner policies.OwnerID, line succession.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, met := r.owner(owner)
	if !met || len(line.Holders) <= len(k.line.Holders) {
		return nil
	}
	k.line = line
	if keys := newestSeen(line); keys.Generation > k.contact.Keys.Generation {
		k.contact.Keys = keys
		return r.put(k)
	}
	return nil
}

// newestOf is an owner's identity, as far as it matters to who seals to it or verifies: with the newest keys that the storefront shows. What cannot be asked now stays as it
// is known.
func (r *Reader) newestOf(ctx context.Context, owner policies.OwnerID) (*policies.Identity, error) {
	line, err := r.lineOf(ctx, owner)
	if err != nil {
		return nil, err
	}
	if newer, _, err := r.successions(ctx, line); err == nil && len(newer.Holders) > len(line.Holders) {
		line = newer
		if err := r.learnLine(owner, newer); err != nil {
			return nil, err
		}
	}
	h := line.Newest()
	return &policies.Identity{SigningKey: h.SigningKey, KEMKey: h.KEMKey, LoginKey: h.LoginKey, RecoveryHash: h.Recovery}, nil
}

// sender is [Reader.newestOf] of who sent a message: policies.CodeSender if that is nobody who was met.
func (r *Reader) sender(ctx context.Context, from policies.IdentityID) (*policies.Identity, error) {
	doc, err := r.newestOf(ctx, policies.OwnerID(from))
	if errors.Is(err, ErrNoContact) {
		return nil, policies.CodeSender
	}
	return doc, err
}

// save writes everything.
func (r *Reader) save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saveLocked()
}

// saveLocked commits the book first: a state that tells of more than its safe has would not open.
func (r *Reader) saveLocked() error {
	r.trust.store(&r.state.base)
	if r.safe != nil {
		if err := r.safe.Commit(); err != nil {
			return err
		}
		r.state.Safe = r.safe.Head()
	} else {
		r.state.People = r.book.Records()
	}
	r.dirty = false
	err := saveState(r.store, &r.state)
	if err == nil && r.safe != nil {
		r.safe.Keep()
	}
	r.state.People = nil
	return err
}

// Merged is what came of [Reader.Merge].
type Merged struct {
	People    int             `json:"people"`    // in the other machine's backup
	News      int             `json:"news"`      // of whom something was not known here, or older
	Conflicts []safe.Conflict `json:"conflicts"` // what the two machines know differently and cannot both be so
}

// errOtherKeys: the backup is of another business, or of other keys of this one.
var errOtherKeys = errors.New("the backup is not of this business with the keys that it has now")

// Merge takes in whom another machine of the same business met and what it saw of them, from that machine's backup. Nothing that is known here is taken back: of two
// states of something the newer counts. Machines that merge one another's backups, in any order and any number of times, know the same people and marks in the end.
func (r *Reader) Merge(plain []byte) (Merged, error) {
	b, err := parseBackup(plain, roleReader)
	if err != nil {
		return Merged{}, err
	}
	defer clear(b.Root)
	defer clear(b.Recovery)
	line, err := lineOf(b.Identity, b.Successions)
	if err != nil {
		return Merged{}, fmt.Errorf("reading a backup: %w: %w", ErrState, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if line.ID != r.id || !bytes.Equal(b.Root, r.state.Root) || b.Replacing != nil || r.state.Replacing != nil {
		return Merged{}, errOtherKeys
	}
	records, err := b.records()
	if err != nil {
		return Merged{}, err
	}
	theirs := safe.NewBook(0)
	if _, _, err := theirs.Join(records); err != nil {
		return Merged{}, fmt.Errorf("reading a backup: %w", err)
	}
	out := Merged{People: theirs.Len(), Conflicts: []safe.Conflict{}}
	var conflicts []safe.Conflict
	if out.News, conflicts, err = r.book.Join(records); err != nil {
		return out, err
	}
	out.Conflicts = append(out.Conflicts, conflicts...)
	for id, k := range r.owners { // in place: reads may be under way, and raise the marks
		if p, ok := r.book.Get(id); ok {
			*k.contact = p
			if p.Keys.Generation >= uint64(len(k.line.Holders)) {
				k.line = succession.Line{} // older than what the other machine saw
			}
		}
	}
	r.settled = false
	return out, r.saveLocked()
}

// records are the people of a backup, whichever program made it.
func (b *backup) records() ([]byte, error) {
	book := safe.NewBook(len(b.Owners))
	if _, _, err := book.Join(b.People); err != nil {
		return nil, fmt.Errorf("reading a backup: %w", err)
	}
	for i := range b.Owners {
		p, err := b.Owners[i].person()
		if err != nil {
			return nil, err
		}
		if err := book.Put(p); err != nil {
			return nil, fmt.Errorf("reading a backup: %w", err)
		}
	}
	return book.Records(), nil
}

// ownerOf finds an owner by alias or id.
func (r *Reader) ownerOf(nameOrID string) (policies.OwnerID, error) {
	id, found, err := r.book.Named(nameOrID)
	if err != nil {
		return id, fmt.Errorf("%q: %w; use the id", nameOrID, err)
	}
	if !found && len(nameOrID) == hex.EncodedLen(len(id)) && id.UnmarshalText([]byte(nameOrID)) == nil {
		_, found = r.book.Get(id)
	}
	if !found {
		return policies.OwnerID{}, fmt.Errorf("%q: %w", nameOrID, ErrNoContact)
	}
	return id, nil
}
