package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/api"
)

// People who read other people. A person is a reader as a business is: the same documents, the same grants, the same vault. The two sides of a person
// share one identity, one root and one profile. The keys of the two sides follow from the root by different labels (pre), so neither side's say anything about the
// other's. What others let a person read is kept in the person's profile, sealed like all of it, and fetched anew by Refresh.

// piece is a field of somebody else that this person may read, as it was last read.
type piece struct {
	Owner   policies.OwnerID  `json:"owner"`
	Field   policies.Field    `json:"field"`
	Author  policies.AuthorID `json:"author"` // who wrote it
	Version uint64            `json:"version"`
	Value   []byte            `json:"value"`
	Read    int64             `json:"read"` // when it was last known to be the newest, Unix seconds by the vault's clock
}

// sideStore keeps the state of the reader's side within the owner's. Whoever makes it save holds the owner's mu.
type sideStore struct{ o *Owner }

// Load hands out the stored state.
func (s sideStore) Load() ([]byte, error) { return bytes.Clone(s.o.state.Side), nil }

// Save saves both sides at once.
func (s sideStore) Save(state []byte) error {
	s.o.state.Side = bytes.Clone(state) // the caller overwrites its own
	return s.o.save()
}

// side is this person as a reader. It shares the owner's device: keys, login, what is known of the vault. The caller holds mu, and goes on holding it while the
// reader works.
func (o *Owner) side() (*Reader, error) {
	if o.reader != nil {
		return o.reader, nil
	}
	r := &Reader{device: o.device, store: sideStore{o}}
	if o.state.Side != nil {
		if err := envelope.Decode(o.state.Side, &r.state); err != nil {
			return nil, fmt.Errorf("%w: the reader's side: %w", ErrState, err)
		}
	}
	// What both sides have is the owner's; the secrets are in one place.
	r.state.base = base{Format: stateFormat, Role: roleReader, Network: o.state.Network, Identity: o.state.Identity, Kind: o.state.Kind, Made: o.state.Made}
	if err := r.load(); err != nil {
		return nil, err
	}
	o.reader = r
	return r, nil
}

// closeSide forgets the secrets of the reader's side.
func (o *Owner) closeSide() {
	if o.reader != nil {
		o.reader.forget()
	}
}

// peopleMet is what a backup holds of the reader's side.
func (o *Owner) peopleMet() ([]byte, error) {
	r, err := o.side()
	if err != nil {
		return nil, err
	}
	return r.book.Records(), nil
}

// restoreSide takes the people of a backup over.
func (o *Owner) restoreSide(b *backup) error {
	people, err := b.records()
	if err != nil || len(people) == 0 {
		return err
	}
	state, err := json.Marshal(readerState{base: base{Format: stateFormat, Role: roleReader}, People: people})
	o.state.Side = state
	return err
}

// takeAsReader takes a message in that is for the reader's side.
func (o *Owner) takeAsReader(ctx context.Context, m *api.Message) error {
	r, err := o.side()
	if err != nil {
		return err
	}
	before := r.state.Mail.Last
	if err := r.takeMail(ctx, m); err != nil {
		return err
	}
	// A person who asks that what was read be deleted is heard: this program deletes it.
	for _, e := range r.Events(before) {
		if e.Kind == EventDeletion {
			o.state.Pieces = slices.DeleteFunc(o.state.Pieces, func(p piece) bool { return p.Owner == e.Owner && slices.Contains(e.Fields, p.Field) })
		}
	}
	return nil
}

// InvitePerson makes an invitation for somebody whom this person wants to ask for fields, under a name of this device's own.
func (o *Owner) InvitePerson(name string, expires time.Time) (links.Invite, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.side()
	if err != nil {
		return links.Invite{}, err
	}
	return r.Invite(name, expires)
}

// AskPerson asks somebody who accepted an invitation, named by alias or id: [Reader.Ask].
func (o *Owner) AskPerson(ctx context.Context, name string, ask Ask) (_ Consent, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.catchUp(ctx); err != nil {
		return Consent{}, err
	}
	r, err := o.side()
	if err != nil {
		return Consent{}, err
	}
	owner, err := r.Find(name)
	if err != nil {
		return Consent{}, err
	}
	return r.Ask(ctx, owner, ask)
}

// AskedPeople lists what this person asked others for, oldest first.
func (o *Owner) AskedPeople() ([]Consent, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.side()
	if err != nil {
		return nil, err
	}
	return r.Consents(), nil
}

// Piece is a field that somebody lets this person read, as it was last read.
type Piece struct {
	Field   policies.Field `json:"field"`
	Version uint64         `json:"version"`
	Value   []byte         `json:"-"` // see package catalogue
	Read    time.Time      `json:"read"`
}

// Person is somebody of whom this person may read something, or did.
type Person struct {
	Contact
	Pieces []Piece `json:"pieces"`
}

// People lists the people whom this person met as a reader, with what is kept of them, by alias. It uses no network.
func (o *Owner) People() ([]Person, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.side()
	if err != nil {
		return nil, err
	}
	out := []Person{}
	for _, c := range r.Contacts() {
		p := Person{Contact: c, Pieces: []Piece{}}
		for i := range o.state.Pieces {
			if have := &o.state.Pieces[i]; have.Owner == policies.OwnerID(c.ID) {
				p.Pieces = append(p.Pieces, Piece{Field: have.Field, Version: have.Version, Value: bytes.Clone(have.Value), Read: time.Unix(have.Read, 0).UTC()})
			}
		}
		slices.SortFunc(p.Pieces, func(a, b Piece) int { return strings.Compare(string(a.Field), string(b.Field)) })
		out = append(out, p)
	}
	return out, nil
}

// Refresh reads everything that other people let this person read, and keeps it. What may not be read any more, or is not there any more, is deleted here: whoever took
// it back, or out, meant that. It reports those, and what could not be read now, which stays as it was; each says why.
func (o *Owner) Refresh(ctx context.Context) (gone, refused []Value, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.catchUp(ctx); err != nil {
		return nil, nil, err
	}
	r, err := o.side()
	if err != nil {
		return nil, nil, err
	}
	items, err := r.Granted(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i := range o.state.Pieces {
		p := &o.state.Pieces[i]
		at := slices.IndexFunc(items, func(it Item) bool { return it.Owner == p.Owner && it.Field == p.Field })
		if at < 0 { // the storefront does not list it; the vault decides whether that is so
			items, at = append(items, Item{Owner: p.Owner, Field: p.Field}), len(items)
		}
		items[at].Author, items[at].Known = p.Author, p.Version
	}
	if len(items) == 0 {
		return nil, nil, nil
	}
	values, err := r.Read(ctx, items...)
	if err != nil {
		return nil, nil, err
	}
	for i := range values {
		v := &values[i]
		at := slices.IndexFunc(o.state.Pieces, func(p piece) bool { return p.Owner == v.Owner && p.Field == v.Field })
		switch {
		case ended(v.Err):
			if at >= 0 {
				clear(o.state.Pieces[at].Value)
				o.state.Pieces = slices.Delete(o.state.Pieces, at, at+1)
				gone = append(gone, *v)
			}
		case v.Err != nil:
			refused = append(refused, *v)
		case v.Unchanged && at >= 0:
			o.state.Pieces[at].Read = v.Time.Unix()
		case v.Bytes != nil:
			p := piece{Owner: v.Owner, Field: v.Field, Author: v.Author, Version: v.Version, Value: v.Bytes, Read: v.Time.Unix()}
			if at < 0 {
				o.state.Pieces = append(o.state.Pieces, p)
			} else {
				o.state.Pieces[at] = p
			}
		}
	}
	return gone, refused, r.save()
}

// ended reports whether the vault itself said that a field may not be read any more, or that there is none any more.
func ended(err error) bool {
	return outcome(err, policies.CodeRevoked, policies.CodeNoGrant, policies.CodeGrantExpired, policies.CodeNotFound)
}
