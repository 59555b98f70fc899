package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
)

// The identity registry (package registry). Ids come from outside the storefront, from a code, a link, or an introduction by a contact; what the registry shows is held
// against the id and then kept, so it cannot show another identity later.

// introductionLife is how long an introduction may be used.
const introductionLife = 14 * 24 * time.Hour

// keptIntroductions bounds how many introductions a reader keeps.
const keptIntroductions = 256

// introducedParty is an introduction that came by message.
type introducedParty struct {
	Hash policies.Hash  `json:"hash"`
	Raw  jsontext.Value `json:"raw"` // envelope, verified when it came
	Used bool           `json:"used,omitzero"`
}

// knownParty is somebody whom a reader looked up and who is no owner of its.
type knownParty struct {
	ID          policies.IdentityID `json:"id"`
	Alias       string              `json:"alias,omitzero"`
	Identity    jsontext.Value      `json:"identity"`
	Successions []jsontext.Value    `json:"successions,omitzero"` // verified when they came
}

// lookup asks the registry. Nothing of the answer is verified.
func (d *device) lookup(ctx context.Context, in api.Lookup) (*api.Found, error) {
	found := new(api.Found)
	if err := d.wire.call(ctx, request{method: "POST", path: api.PathLookups, in: in, out: found, login: true}); err != nil {
		return nil, err
	}
	return found, nil
}

// registered is what this identity says of itself at the registry; nil: nothing.
func (d *device) registered(ctx context.Context) (*registry.Registration, error) {
	found, err := d.lookup(ctx, api.Lookup{Identity: d.id})
	if err != nil || found.Registration == nil {
		return nil, err
	}
	e, err := envelope.Parse(found.Registration)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	doc, err := policies.Decode[registry.Registration](e)
	if err != nil || doc.Identity != d.id || d.line.Verify(e, 0) != nil || doc.Version == math.MaxUint64 {
		return nil, fmt.Errorf("%w: it is no registration of this identity", ErrUntrue)
	}
	return doc, nil
}

// register says who may look this identity up.
func (d *device) register(ctx context.Context, rule registry.Lookup) error {
	doc, err := d.registered(ctx)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	next := &registry.Registration{Header: policies.NewHeader("registration", d.now()), Identity: d.id, Version: 1, Lookup: rule}
	if doc != nil {
		next.Version = doc.Version + 1
	}
	e, err := policies.Sign(d.signing, next)
	if err != nil {
		return err
	}
	if err := d.wire.call(ctx, request{method: "POST", path: api.PathRegistrations, raw: e.Raw, login: true}); err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	return nil
}

// introduce makes an introduction of a party for another, sealed to the latter.
func (d *device) introduce(subject, to policies.IdentityID, keys *policies.Identity, purpose string) (*envelope.Envelope, api.Message, error) {
	return seal[registry.Introduction](d, keys, &registry.Introduction{
		Addressed: d.address("introduction", to, policies.Hash{}, introductionLife), Subject: subject, Purpose: purpose, Nonce: policies.NewNonce(),
	})
}

// introduceSelf is an introduction of this identity for somebody who is about to hear from it, if it may be looked up by introduction only.
func (d *device) introduceSelf(ctx context.Context, to policies.IdentityID, keys *policies.Identity, purpose string) ([]api.Message, error) {
	doc, err := d.registered(ctx)
	if err != nil || doc == nil || doc.Lookup != registry.Introduced {
		return nil, err
	}
	_, letter, err := d.introduce(d.id, to, keys, purpose)
	return []api.Message{letter}, err
}

// Register says at the registry who may look this person up.
func (o *Owner) Register(ctx context.Context, rule registry.Lookup) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if err := o.run(ctx); err != nil {
		return err
	}
	return o.register(ctx, rule)
}

// Register says at the registry who may look this reader up. Whoever hands out invitations lets anyone: a link is no introduction.
func (r *Reader) Register(ctx context.Context, rule registry.Lookup) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	return r.register(ctx, rule)
}

// Introduce introduces one contact to another: to may look subject up at the registry, once. The other contact is told nothing.
func (o *Owner) Introduce(ctx context.Context, subject, to policies.ReaderID, purpose string) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.sayWhy(ctx, &err)
	if _, ok := o.contact(subject); !ok {
		return ErrNoContact
	}
	c, ok := o.contact(to)
	if !ok {
		return ErrNoContact
	}
	if err := o.run(ctx); err != nil {
		return err
	}
	keys, err := c.identity()
	if err != nil {
		return err
	}
	e, letter, err := o.introduce(policies.IdentityID(subject), c.ID, keys, purpose)
	if err != nil {
		return err
	}
	o.state.Mail.Outbox = append(o.state.Mail.Outbox, outgoingOf(e, letter, keys))
	if err := o.save(); err != nil {
		return err
	}
	return o.sendAll(ctx)
}

// stranger verifies a document of somebody whom the registry lets this reader look up and whose id the document's seal names.
func stranger[T any, D addressed[T]](ctx context.Context, r *Reader, m *api.Message, e *envelope.Envelope) (D, *policies.Identity, error) {
	_, from, err := r.identity(ctx, m.From)
	if err != nil {
		return nil, nil, err
	}
	if from, err = r.newestKeys(ctx, m.From, from); err != nil {
		return nil, nil, err
	}
	d, err := verify[T, D](r.device, m, e, from)
	return d, from, err
}

// takeIntroduction takes an introduction in: one of a third party, by a contact, is kept until it is used; who introduces itself is looked up, so that what it sends next is heard.
func (r *Reader) takeIntroduction(ctx context.Context, m *api.Message, e *envelope.Envelope) error {
	claim, err := policies.Decode[registry.Introduction](e)
	if err != nil {
		return err
	}
	if r.now().Unix() >= claim.Expires {
		return policies.CodeIntroductionExpired
	}
	if claim.Subject == m.From {
		_, err := r.lookup(ctx, api.Lookup{Identity: m.From, Introduction: e.Raw})
		if err != nil && !errors.Is(err, policies.CodeIntroductionUsed) && !errors.Is(err, policies.CodeTooLarge) { // with either it is known already
			return err
		}
		_, _, err = stranger[registry.Introduction](ctx, r, m, e)
		return err
	}
	from, err := r.sender(ctx, m.From)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := verify[registry.Introduction](r.device, m, e, from); err != nil {
		return err
	}
	kept := &r.state.Mail.Introductions
	if slices.ContainsFunc(*kept, func(i introducedParty) bool { return i.Hash == policies.Hash(e.Hash) }) {
		return fmt.Errorf("%w: it came again", policies.CodeIntroductionUsed)
	}
	*kept = append(*kept, introducedParty{Hash: policies.Hash(e.Hash), Raw: e.Raw})
	if n := len(*kept) - keptIntroductions; n > 0 {
		*kept = slices.Delete(*kept, 0, n)
	}
	return nil
}

// Introduced is an introduction that a contact sent this reader.
type Introduced struct {
	Subject policies.IdentityID `json:"id"`
	By      policies.IdentityID `json:"by"`
	Alias   string              `json:"by_alias,omitzero"` // of who introduces
	Purpose string              `json:"purpose"`
	Expires time.Time           `json:"expires"`
	Used    bool                `json:"used,omitzero"`
}

// Introductions lists the introductions that came, oldest first.
func (r *Reader) Introductions() []Introduced {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Introduced{}
	for _, i := range r.state.Mail.Introductions {
		d, err := i.open()
		if err != nil {
			continue
		}
		one := Introduced{Subject: d.Subject, By: d.From, Purpose: d.Purpose, Expires: time.Unix(d.Expires, 0).UTC(), Used: i.Used}
		one.Alias = r.alias(policies.OwnerID(d.From))
		out = append(out, one)
	}
	return out
}

// open reads a stored introduction. It was verified when it came.
func (i *introducedParty) open() (*registry.Introduction, error) {
	e, err := envelope.Parse(i.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return policies.Decode[registry.Introduction](e)
}

// LookUp looks somebody up at the registry, by an introduction if one came, and keeps who it is, under an alias of this reader's own. The id pins the identity: another
// document is [ErrUntrue].
func (r *Reader) LookUp(ctx context.Context, id policies.IdentityID, alias string) (Contact, error) {
	if err := r.ready(ctx); err != nil {
		return Contact{}, err
	}
	in := api.Lookup{Identity: id}
	r.mu.Lock()
	for _, p := range r.state.Mail.Parties {
		if alias != "" && p.Alias == alias && p.ID != id {
			r.mu.Unlock()
			return Contact{}, fmt.Errorf("%w: the alias %q is taken", policies.ErrMalformed, alias)
		}
	}
	for _, i := range r.state.Mail.Introductions {
		if d, err := i.open(); err == nil && d.Subject == id && !i.Used && r.now().Unix() < d.Expires {
			in.Introduction = i.Raw
		}
	}
	r.mu.Unlock()
	found, err := r.lookup(ctx, in)
	if errors.Is(err, policies.CodeIntroductionUsed) { // by this reader, and the answer was lost
		found, err = r.lookup(ctx, api.Lookup{Identity: id})
	}
	if err != nil {
		return Contact{}, fmt.Errorf("looking up: %w", err)
	}
	doc, err := openIdentity(found.Identity, id)
	if err != nil {
		return Contact{}, fmt.Errorf("looking up: %w", err)
	}
	_, successions, err := r.successions(ctx, succession.Begin(id, doc))
	if err != nil {
		return Contact{}, fmt.Errorf("looking up: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.state.Mail.Introductions {
		if one := &r.state.Mail.Introductions[i]; in.Introduction != nil && string(one.Raw) == string(in.Introduction) {
			one.Used = true
		}
	}
	at := slices.IndexFunc(r.state.Mail.Parties, func(p knownParty) bool { return p.ID == id })
	if at < 0 {
		r.state.Mail.Parties = append(r.state.Mail.Parties, knownParty{ID: id, Identity: found.Identity})
		at = len(r.state.Mail.Parties) - 1
	}
	p := &r.state.Mail.Parties[at]
	if alias != "" {
		p.Alias = alias
	}
	if len(successions) >= len(p.Successions) {
		p.Successions = successions
	}
	return Contact{ID: id, Alias: p.Alias, Name: doc.Name, Kind: doc.Kind}, r.saveLocked()
}

// Party finds somebody whom this reader looked up, by alias or id.
func (r *Reader) Party(nameOrID string) (policies.IdentityID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.state.Mail.Parties {
		if p.Alias == nameOrID && nameOrID != "" || p.ID.String() == nameOrID {
			return p.ID, nil
		}
	}
	return policies.IdentityID{}, fmt.Errorf("%q: %w", nameOrID, ErrNoContact)
}

// party is somebody whom this reader looked up, with the newest keys that the registry shows.
func (r *Reader) party(ctx context.Context, id policies.IdentityID) (*policies.Identity, error) {
	r.mu.Lock()
	at := slices.IndexFunc(r.state.Mail.Parties, func(p knownParty) bool { return p.ID == id })
	if at < 0 {
		r.mu.Unlock()
		return nil, ErrNoContact
	}
	p := r.state.Mail.Parties[at]
	r.mu.Unlock()
	line, err := lineOf(p.Identity, p.Successions)
	if err != nil || line.ID != id {
		return nil, fmt.Errorf("%w: a party that was looked up: %w", ErrState, err)
	}
	if newer, _, err := r.successions(ctx, line); err == nil {
		line = newer
	} else if !temporary(err) && !errors.Is(err, policies.CodeNotIntroduced) { // the introduction may be over; what is pinned stays
		return nil, err
	}
	doc, err := openIdentity(p.Identity, id)
	if err != nil {
		return nil, err
	}
	h := line.Newest()
	doc.SigningKey, doc.KEMKey, doc.LoginKey, doc.RecoveryHash = h.SigningKey, h.KEMKey, h.LoginKey, h.Recovery
	return doc, nil
}
